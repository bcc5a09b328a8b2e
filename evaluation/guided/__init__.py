"""Guided decoding in torch: a second model adjusts the logits of every token. The head's teacher and baselines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
