"""Audit: check that a checkpoint is its base minus a harm vector, by digests, recomputation, or its weights alone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
