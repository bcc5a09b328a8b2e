"""Steering, measured: a preference grid, hypervolume, mean inner product, monotonicity, gain (torch-free)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bootstrap import hierarchical_bootstrap as hierarchical_bootstrap
    from .document import steering_document as steering_document
    from .grid import PreferenceGrid as PreferenceGrid
    from .measuring import measure_steering as measure_steering
    from .monotonicity import MonotoneStep as MonotoneStep
    from .monotonicity import monotone_steps as monotone_steps
    from .page import render_steering as render_steering
    from .page import write_steering_page as write_steering_page
    from .scores import GridScores as GridScores
    from .scores import score_grid as score_grid
    from .volume import hypervolume as hypervolume
    from .volume import mean_inner_product as mean_inner_product

_HOME = {
    "GridScores": ".scores",
    "MonotoneStep": ".monotonicity",
    "PreferenceGrid": ".grid",
    "hierarchical_bootstrap": ".bootstrap",
    "hypervolume": ".volume",
    "measure_steering": ".measuring",
    "mean_inner_product": ".volume",
    "monotone_steps": ".monotonicity",
    "render_steering": ".page",
    "score_grid": ".scores",
    "steering_document": ".document",
    "write_steering_page": ".page",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
