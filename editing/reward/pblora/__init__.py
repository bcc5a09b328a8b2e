"""PBLoRA as a tuner of peft: importing its config or model registers it with peft."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .layer import PBLoRALinear as PBLoRALinear
    from .preference import preference_vector as preference_vector
    from .tuner import PBLoRAConfig as PBLoRAConfig
    from .tuner import PBLoRAModel as PBLoRAModel
    from .tuner import use_preference as use_preference

_HOME = {
    "PBLoRAConfig": ".tuner",
    "PBLoRALinear": ".layer",
    "PBLoRAModel": ".tuner",
    "preference_vector": ".preference",
    "use_preference": ".tuner",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
