"""Tuning of a given model through TRL and peft: on replies, on pairs of replies, and the copy for a harm vector."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .harmful import AdapterTraining as AdapterTraining
    from .harmful import train_adapter as train_adapter
    from .preference_tuning import EncodedPreference as EncodedPreference
    from .preference_tuning import tune_on_preferences as tune_on_preferences
    from .settings import LoraShape as LoraShape
    from .settings import PreferenceTuning as PreferenceTuning
    from .settings import Tuning as Tuning
    from .supervised import tune_on_replies as tune_on_replies

_HOME = {
    "AdapterTraining": ".harmful",
    "EncodedPreference": ".preference_tuning",
    "LoraShape": ".settings",
    "PreferenceTuning": ".settings",
    "Tuning": ".settings",
    "train_adapter": ".harmful",
    "tune_on_preferences": ".preference_tuning",
    "tune_on_replies": ".supervised",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
