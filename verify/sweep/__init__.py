"""Sweeps: search the scale, the method and the spread over the model for the edit with the least harm."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .examiner import Answering as Answering
    from .examiner import Examiner as Examiner
    from .pareto import pareto_front as pareto_front
    from .settings import Limits as Limits
    from .space import Choice as Choice
    from .space import SearchSpace as SearchSpace
    from .study import Parents as Parents
    from .study import Sweep as Sweep
    from .terminal import print_sweep as print_sweep
    from .trials import Trial as Trial
    from .trials import picked as picked

_HOME = {
    "Answering": ".examiner",
    "Choice": ".space",
    "Examiner": ".examiner",
    "Limits": ".settings",
    "Parents": ".study",
    "SearchSpace": ".space",
    "Sweep": ".study",
    "Trial": ".trials",
    "pareto_front": ".pareto",
    "picked": ".trials",
    "print_sweep": ".terminal",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
