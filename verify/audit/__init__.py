"""Audit: is a checkpoint its base minus a harm vector? By digests, by recomputation, or from its weights alone."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auditing import audit_model as audit_model
    from .document import AuditReport as AuditReport
    from .terminal import print_audit as print_audit

_HOME = {
    "AuditReport": ".document",
    "audit_model": ".auditing",
    "print_audit": ".terminal",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
