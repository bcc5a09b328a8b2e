"""The evaluation of a gate: whether its risks are probabilities, and which threshold shows a requested leak rate."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
