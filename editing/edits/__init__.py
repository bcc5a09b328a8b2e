"""Edits: subtracting a harm vector from a checkpoint, with a validated plan before and a record afterwards."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
