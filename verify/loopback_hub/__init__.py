"""A Hub on this machine that the real huggingface_hub client speaks to, with faults on demand."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .faults import Fault as Fault
    from .repository import Repository as Repository
    from .server import LoopbackHub as LoopbackHub

_HOME = {"Fault": ".faults", "LoopbackHub": ".server", "Repository": ".repository"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
