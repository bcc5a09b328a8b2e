"""Audit: is a checkpoint its base minus a harm vector? By digests, by recomputation, or from its weights alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
