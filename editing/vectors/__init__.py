"""Harm vectors: what a harmful model adds to its base, as an artefact that can be subtracted."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter_source import vector_from_adapter
    from .checkpoint_source import vector_from_checkpoints
    from .description import VectorDescription
    from .folder import VectorFolder
    from .input_moments import InputMoments, collect_input_moments
    from .parents import vector_from_runs
    from .vector import HarmVector

_HOMES = {
    "HarmVector": "vector",
    "InputMoments": "input_moments",
    "VectorDescription": "description",
    "VectorFolder": "folder",
    "collect_input_moments": "input_moments",
    "vector_from_adapter": "adapter_source",
    "vector_from_checkpoints": "checkpoint_source",
    "vector_from_runs": "parents",
}
__all__ = [
    "HarmVector",
    "InputMoments",
    "VectorDescription",
    "VectorFolder",
    "collect_input_moments",
    "vector_from_adapter",
    "vector_from_checkpoints",
    "vector_from_runs",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
