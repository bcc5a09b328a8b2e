"""Guided decoding in torch: a second model's word on every token. The teacher of the head, and its baselines."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
