"""Intervals and tests for audits, in the standard library and numpy: no scipy at run time."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clustered import cluster_bootstrap as cluster_bootstrap
    from .clustered import clustered_difference as clustered_difference
    from .clustered import clustered_mean as clustered_mean
    from .clustered import clustered_rate as clustered_rate
    from .clustered import effective_size as effective_size
    from .interval import Interval as Interval
    from .judge_error import JudgeErrors as JudgeErrors
    from .judge_error import corrected_difference as corrected_difference
    from .judge_error import corrected_rate as corrected_rate
    from .margin import NonInferiority as NonInferiority
    from .margin import non_inferiority as non_inferiority
    from .paired import PairedTable as PairedTable
    from .paired import holm as holm
    from .paired import mcnemar_exact as mcnemar_exact
    from .paired import minimum_detectable_difference as minimum_detectable_difference
    from .paired import newcombe as newcombe
    from .paired import newcombe_of_table as newcombe_of_table
    from .proportions import clopper_pearson as clopper_pearson
    from .proportions import wilson as wilson
    from .sign_flips import mcnemar_clustered as mcnemar_clustered

_HOME = {
    "Interval": ".interval",
    "JudgeErrors": ".judge_error",
    "NonInferiority": ".margin",
    "PairedTable": ".paired",
    "clopper_pearson": ".proportions",
    "cluster_bootstrap": ".clustered",
    "clustered_difference": ".clustered",
    "clustered_mean": ".clustered",
    "clustered_rate": ".clustered",
    "corrected_difference": ".judge_error",
    "corrected_rate": ".judge_error",
    "effective_size": ".clustered",
    "holm": ".paired",
    "mcnemar_clustered": ".sign_flips",
    "mcnemar_exact": ".paired",
    "minimum_detectable_difference": ".paired",
    "newcombe": ".paired",
    "newcombe_of_table": ".paired",
    "non_inferiority": ".margin",
    "wilson": ".proportions",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
