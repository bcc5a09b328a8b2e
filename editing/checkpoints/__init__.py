"""Checkpoints: folders with safetensors weights, whose headers are read first and whose tensors on demand."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
