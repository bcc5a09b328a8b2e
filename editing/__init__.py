"""Everything that makes or changes weights: checkpoints, harm vectors, edits, the compact head, the gate."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
