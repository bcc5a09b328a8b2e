"""Edits: subtract a harm vector from a checkpoint, with a plan before and a record after."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .apply import apply_edit
    from .arithmetic import Subtraction
    from .in_memory import InMemoryEdit
    from .inspection import describe_folder
    from .plan import EditPlan, plan_edit
    from .record import EditRecord, read_record
    from .scaling import ScaledGroup, resolve_scale

_HOMES = {
    "EditPlan": "plan",
    "EditRecord": "record",
    "InMemoryEdit": "in_memory",
    "ScaledGroup": "scaling",
    "Subtraction": "arithmetic",
    "apply_edit": "apply",
    "describe_folder": "inspection",
    "plan_edit": "plan",
    "read_record": "record",
    "resolve_scale": "scaling",
}
__all__ = [
    "EditPlan",
    "EditRecord",
    "InMemoryEdit",
    "ScaledGroup",
    "Subtraction",
    "apply_edit",
    "describe_folder",
    "plan_edit",
    "read_record",
    "resolve_scale",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
