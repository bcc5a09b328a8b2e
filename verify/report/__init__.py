"""Reports of a run: a table in the terminal, `report.json`, and a page that needs nothing but a browser."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .document import assemble as assemble
    from .document import write_report as write_report
    from .page import render_page as render_page
    from .samples import choose_samples as choose_samples
    from .samples import sample as sample
    from .terminal import print_report as print_report

_HOME = {
    "assemble": ".document",
    "choose_samples": ".samples",
    "print_report": ".terminal",
    "render_page": ".page",
    "sample": ".samples",
    "write_report": ".document",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
