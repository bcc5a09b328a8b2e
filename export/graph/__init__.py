"""The ONNX graph: a wrapper with flat inputs, traced in one of two profiles, checked against torch at once."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agreement import check_agreement as check_agreement
    from .trace import trace_graph as trace_graph

_HOME = {"check_agreement": ".agreement", "trace_graph": ".trace"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
