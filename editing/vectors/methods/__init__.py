"""Methods that shape a harm vector: one file each, which the registry finds here."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .method import Deltas, Method, Prepared
    from .registry import METHODS, choose_method

_HOMES = {
    "Deltas": "method",
    "METHODS": "registry",
    "Method": "method",
    "Prepared": "method",
    "choose_method": "registry",
}
__all__ = [
    "METHODS",
    "Deltas",
    "Method",
    "Prepared",
    "choose_method",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
