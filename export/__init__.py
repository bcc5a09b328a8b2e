"""Export: the ONNX graph, the bundle, the torch-free runtime, and the Hugging Face Hub."""

import lazy_loader

from prosocial.moved import with_moved_names

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = with_moved_names(__name__, __getattr__)
