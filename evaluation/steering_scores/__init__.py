"""Steering scores: preference grid, hypervolume, mean inner product, monotonicity and gain (torch-free)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
