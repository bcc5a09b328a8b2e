"""Methods that shape a harm vector: one file each, which the registry finds here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
