"""Parity: whether a bundle agrees with its reference in logits, risks, safe sets and greedy replies."""

import lazy_loader

from prosocial.moved import with_moved_names

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = with_moved_names(__name__, __getattr__)
