"""Signatures: who vouches for a folder's bytes, for the edit in it, and for what was verified of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
