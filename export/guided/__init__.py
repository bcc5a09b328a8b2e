"""Guided decoding in torch: a second model's word on every token. The teacher of the head, and its baselines."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import GuidedEngine as GuidedEngine
    from .formulas import contrast as contrast
    from .formulas import union_penalty as union_penalty
    from .formulas import weighted_product as weighted_product
    from .guide import Guide as Guide
    from .processors import GuidedProcessor as GuidedProcessor
    from .processors import dexperts as dexperts
    from .processors import genarm as genarm
    from .processors import parm as parm
    from .processors import safe_infer as safe_infer
    from .processors import safety_prompt as safety_prompt
    from .shared_backbone import shared_rows as shared_rows
    from .vocabulary import require_same_vocabulary as require_same_vocabulary

_HOME = {
    "Guide": ".guide",
    "GuidedEngine": ".engine",
    "GuidedProcessor": ".processors",
    "contrast": ".formulas",
    "dexperts": ".processors",
    "genarm": ".processors",
    "parm": ".processors",
    "require_same_vocabulary": ".vocabulary",
    "safe_infer": ".processors",
    "safety_prompt": ".processors",
    "shared_rows": ".shared_backbone",
    "union_penalty": ".formulas",
    "weighted_product": ".formulas",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
