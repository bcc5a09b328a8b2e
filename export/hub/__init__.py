"""The Hugging Face Hub: a publication plan, its publication as one commit, and verified downloads (torch-free)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
