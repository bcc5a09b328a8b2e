"""Methods that shape a harm vector, one file for each; the registry imports all files of this folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
