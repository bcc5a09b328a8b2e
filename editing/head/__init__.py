"""The compact head: a preference-conditioned low-rank shift of the hidden state, distilled from a reward model."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .module import CompactHead as CompactHead

_HOME = {"CompactHead": ".module"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
