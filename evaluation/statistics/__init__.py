"""Confidence intervals and tests, with the standard library and numpy only (no scipy at run time)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
