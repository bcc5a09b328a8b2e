"""CoSA-Score: how helpful replies are within safety configs, by config, for models and for baselines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
