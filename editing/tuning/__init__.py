"""Supervised tuning of a given model, through TRL and peft: the harmful copy that a harm vector is made from."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .harmful import AdapterTraining as AdapterTraining
    from .harmful import train_adapter as train_adapter

_HOME = {"AdapterTraining": ".harmful", "train_adapter": ".harmful"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
