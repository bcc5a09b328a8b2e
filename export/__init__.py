"""Export: the steered reference model, its ONNX graph, the bundle and the torch-free runtime."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
