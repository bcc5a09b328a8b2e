"""Does a bundle decide as its reference does? Logits, safe sets, distributions and greedy replies side by side."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engines import Margins as Margins
    from .engines import ParityEngine as ParityEngine
    from .engines import ScoredReply as ScoredReply
    from .engines import StepOutputs as StepOutputs
    from .gates import GateResult as GateResult
    from .gates import ParityGates as ParityGates
    from .gates import Verdict as Verdict
    from .measure import measure_parity as measure_parity
    from .report import ParityReport as ParityReport

_HOME = {
    "GateResult": ".gates",
    "Margins": ".engines",
    "ParityEngine": ".engines",
    "ParityGates": ".gates",
    "ParityReport": ".report",
    "ScoredReply": ".engines",
    "StepOutputs": ".engines",
    "Verdict": ".gates",
    "measure_parity": ".measure",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
