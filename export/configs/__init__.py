"""Safety configs: what they say, who may bring one from outside, and the log of what was done under them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .audit_log import AuditLog as AuditLog
    from .audit_log import LogReport as LogReport
    from .audit_log import check_log as check_log
    from .authorisation import authorise as authorise
    from .authorisation import sign_config as sign_config
    from .authorised import AuthorisedConfig as AuthorisedConfig
    from .refusal import Reason as Reason
    from .refusal import RefusedConfig as RefusedConfig
    from .registry import COSA as COSA
    from .registry import CategoryRegistry as CategoryRegistry
    from .safety_config import NamedConfig as NamedConfig
    from .safety_config import SafetyConfig as SafetyConfig
    from .trust import TrustStore as TrustStore

_HOME = {
    "COSA": ".registry",
    "AuditLog": ".audit_log",
    "AuthorisedConfig": ".authorised",
    "CategoryRegistry": ".registry",
    "LogReport": ".audit_log",
    "NamedConfig": ".safety_config",
    "Reason": ".refusal",
    "RefusedConfig": ".refusal",
    "SafetyConfig": ".safety_config",
    "TrustStore": ".trust",
    "authorise": ".authorisation",
    "check_log": ".audit_log",
    "sign_config": ".authorisation",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
