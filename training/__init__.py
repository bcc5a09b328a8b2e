"""Training: the reward model, the compact head, the gate, and tuning of whole models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
