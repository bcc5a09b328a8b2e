"""Does a bundle decide as its reference does? Logits, safe sets, distributions and greedy replies side by side."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
