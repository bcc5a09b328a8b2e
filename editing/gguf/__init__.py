"""Reading GGUF files of llama.cpp, and turning them into checkpoints that can be edited."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
