"""Sweeps: search over scale, method and distribution across layers for the edit with the least harm."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
