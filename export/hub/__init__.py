"""The Hub: a plan of what would be published, one commit of it, and a download that is checked (torch-free)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import HubClient as HubClient
    from .kinds import Kind as Kind
    from .kinds import identify as identify
    from .plan import PublicationPlan as PublicationPlan
    from .plan import plan_publication as plan_publication
    from .publication import Published as Published
    from .publication import publish as publish
    from .snapshot import download as download
    from .verification import Verification as Verification
    from .verification import check_verification as check_verification

_HOME = {
    "HubClient": ".client",
    "Kind": ".kinds",
    "PublicationPlan": ".plan",
    "Published": ".publication",
    "Verification": ".verification",
    "check_verification": ".verification",
    "download": ".snapshot",
    "identify": ".kinds",
    "plan_publication": ".plan",
    "publish": ".publication",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
