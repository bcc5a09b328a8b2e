"""Edits: subtract a harm vector from a checkpoint, with a plan before and a record after."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import AdapterReport, write_adapter
    from .apply import apply_edit
    from .arithmetic import PieceSubtraction, Subtraction
    from .difference import CheckpointDifference, compare_weights
    from .in_memory import InMemoryEdit
    from .inspection import describe_folder
    from .plan import EditPlan, plan_edit
    from .record import EditRecord, read_record
    from .rounding import Rounding
    from .scaling import ScaledGroup, resolve_scale
    from .undo import undo_edit

_HOMES = {
    "AdapterReport": "adapter",
    "CheckpointDifference": "difference",
    "EditPlan": "plan",
    "EditRecord": "record",
    "InMemoryEdit": "in_memory",
    "PieceSubtraction": "arithmetic",
    "Rounding": "rounding",
    "ScaledGroup": "scaling",
    "Subtraction": "arithmetic",
    "apply_edit": "apply",
    "compare_weights": "difference",
    "describe_folder": "inspection",
    "plan_edit": "plan",
    "read_record": "record",
    "resolve_scale": "scaling",
    "undo_edit": "undo",
    "write_adapter": "adapter",
}
__all__ = [
    "AdapterReport",
    "CheckpointDifference",
    "EditPlan",
    "EditRecord",
    "InMemoryEdit",
    "PieceSubtraction",
    "Rounding",
    "ScaledGroup",
    "Subtraction",
    "apply_edit",
    "compare_weights",
    "describe_folder",
    "plan_edit",
    "read_record",
    "resolve_scale",
    "undo_edit",
    "write_adapter",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
