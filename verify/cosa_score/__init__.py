"""CoSA-Score: how helpful replies are within safety configs, by config, for models and for baselines."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configs import ScoredConfig as ScoredConfig
    from .configs import bundle_configs as bundle_configs
    from .configs import read_configs as read_configs
    from .document import score_document as score_document
    from .measuring import ScoreSettings as ScoreSettings
    from .measuring import score_models as score_models
    from .page import render_scores as render_scores
    from .questions import Question as Question
    from .questions import questions_of as questions_of
    from .rubrics import compliance_rubric as compliance_rubric
    from .rubrics import harm_set_rubric as harm_set_rubric
    from .shots import read_shots as read_shots
    from .verdicts import Verdict as Verdict

_HOME = {
    "Question": ".questions",
    "ScoreSettings": ".measuring",
    "ScoredConfig": ".configs",
    "Verdict": ".verdicts",
    "bundle_configs": ".configs",
    "compliance_rubric": ".rubrics",
    "harm_set_rubric": ".rubrics",
    "questions_of": ".questions",
    "read_configs": ".configs",
    "read_shots": ".shots",
    "render_scores": ".page",
    "score_document": ".document",
    "score_models": ".measuring",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
