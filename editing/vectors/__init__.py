"""Harm vectors: the weight difference between a harmful model and its base, stored so that it can be subtracted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
