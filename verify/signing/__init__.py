"""Signatures over a folder's files, and signed statements about its edit, its export and its verification."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
