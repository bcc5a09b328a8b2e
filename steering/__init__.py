"""The lexicographic rule: its torch reference, the decoding loop, safety configs and who may use them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
