"""Signature primitives: EC P-256 keys and signed statements (torch-free)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .envelope import BrokenSignature as BrokenSignature
    from .keys import SigningKey as SigningKey
    from .keys import TrustedKey as TrustedKey

_HOME = {
    "BrokenSignature": ".envelope",
    "SigningKey": ".keys",
    "TrustedKey": ".keys",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
