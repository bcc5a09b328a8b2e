"""The Hub: a plan of what would be published, one commit of it, and a download that is checked (torch-free)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
