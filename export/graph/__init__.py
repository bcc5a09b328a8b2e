"""The ONNX graph: a wrapper with flat inputs, traced in one of two profiles and compared with torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
