"""Harm vectors: what a harmful model adds to its base, as an artefact that can be subtracted."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter_source import vector_from_adapter
    from .checkpoint_source import vector_from_checkpoints
    from .description import VectorDescription
    from .folder import VectorFolder
    from .vector import HarmVector

_HOMES = {
    "HarmVector": "vector",
    "VectorDescription": "description",
    "VectorFolder": "folder",
    "vector_from_adapter": "adapter_source",
    "vector_from_checkpoints": "checkpoint_source",
}
__all__ = [
    "HarmVector",
    "VectorDescription",
    "VectorFolder",
    "vector_from_adapter",
    "vector_from_checkpoints",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
