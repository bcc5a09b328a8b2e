"""Signatures: who vouches for a folder's bytes, for the edit in it, and for what was verified of it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chain import ChainReport as ChainReport
    from .chain import check_chain as check_chain
    from .sealing import sign_folder as sign_folder
    from .terminal import print_chain as print_chain

_HOME = {
    "ChainReport": ".chain",
    "check_chain": ".chain",
    "print_chain": ".terminal",
    "sign_folder": ".sealing",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
