"""The gate: the risk, by harm category, of every candidate for the next token."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import HarmGate as HarmGate

_HOME = {"HarmGate": ".module"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
