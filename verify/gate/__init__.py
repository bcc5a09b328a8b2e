"""What a gate is worth: is its risk a probability, and which threshold shows the leak rate that was asked for?"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibration import measure_calibration as measure_calibration
    from .reliability import Reliability as Reliability
    from .reliability import measure_reliability as measure_reliability
    from .threshold import LeakTest as LeakTest
    from .threshold import choose_threshold as choose_threshold

_HOME = {
    "LeakTest": ".threshold",
    "Reliability": ".reliability",
    "choose_threshold": ".threshold",
    "measure_calibration": ".calibration",
    "measure_reliability": ".reliability",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
