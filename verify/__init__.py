"""Probes, judges, parity with the reference, paired safety statistics, and reports."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle_parity import verify_bundle as verify_bundle
    from .comparison import ComparisonReport as ComparisonReport
    from .comparison import compare as compare
    from .judges.refusal import RefusalJudge as RefusalJudge
    from .judges.registry import judge_named as judge_named
    from .judges.registry import register_judge as register_judge
    from .outcomes import Outcome as Outcome
    from .outcomes import judge_replies as judge_replies
    from .parity.engines import ParityEngine as ParityEngine
    from .parity.gates import ParityGates as ParityGates
    from .parity.gates import Verdict as Verdict
    from .parity.measure import measure_parity as measure_parity
    from .parity.report import ParityReport as ParityReport
    from .preferences import PreferenceEffect as PreferenceEffect
    from .preferences import preference_effects as preference_effects
    from .probes import Probe as Probe
    from .probes import read_probes as read_probes
    from .probes import write_probes as write_probes
    from .report.document import write_report as write_report
    from .report.samples import choose_samples as choose_samples
    from .report.terminal import print_report as print_report
    from .statistics.interval import Interval as Interval
    from .systems import open_system as open_system

_HOME = {
    "ComparisonReport": ".comparison",
    "Interval": ".statistics.interval",
    "Outcome": ".outcomes",
    "ParityEngine": ".parity.engines",
    "ParityGates": ".parity.gates",
    "ParityReport": ".parity.report",
    "PreferenceEffect": ".preferences",
    "Probe": ".probes",
    "RefusalJudge": ".judges.refusal",
    "Verdict": ".parity.gates",
    "choose_samples": ".report.samples",
    "compare": ".comparison",
    "judge_named": ".judges.registry",
    "judge_replies": ".outcomes",
    "measure_parity": ".parity.measure",
    "open_system": ".systems",
    "preference_effects": ".preferences",
    "print_report": ".report.terminal",
    "read_probes": ".probes",
    "register_judge": ".judges.registry",
    "verify_bundle": ".bundle_parity",
    "write_probes": ".probes",
    "write_report": ".report.document",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
