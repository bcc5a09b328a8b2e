"""Judges of replies, by name."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .refusal import RefusalJudge as RefusalJudge
    from .registry import judge_named as judge_named
    from .registry import judge_names as judge_names
    from .registry import register_judge as register_judge
    from .requests import AttributeRequest as AttributeRequest
    from .requests import CategoryRequest as CategoryRequest
    from .requests import ConfigRequest as ConfigRequest
    from .requests import HarmRequest as HarmRequest
    from .requests import LabelRequest as LabelRequest

_HOME = {
    "RefusalJudge": ".refusal",
    "judge_named": ".registry",
    "judge_names": ".registry",
    "register_judge": ".registry",
    "AttributeRequest": ".requests",
    "CategoryRequest": ".requests",
    "ConfigRequest": ".requests",
    "HarmRequest": ".requests",
    "LabelRequest": ".requests",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
