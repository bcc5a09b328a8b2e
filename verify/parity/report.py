"""A judged comparison of a bundle with its reference, and its JSON document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.evaluation.report.report_document import PARITY_SCHEMA as SCHEMA
from prosocial.evaluation.statistics.interval import scientific
from prosocial.evaluation.statistics.proportions import clopper_pearson

from .divergence import Divergence, Ties
from .gates import GateResult, ParityGates, ParityVerdict, worst
from .judging import GreedyComparison, percentile
from .localisation import FirstDifference

LISTED = 50  # most flips and differing replies listed in the JSON; the counts include all
PERCENTILES = (
    ("min", 0.0),
    ("p1", 1.0),
    ("p5", 5.0),
    ("p10", 10.0),
    ("median", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99_9", 99.9),
    ("max", 100.0),
)


@dataclass(frozen=True)
class ParityReport:
    """The judged comparison of a bundle with its reference.

    Attributes:
        reference: name of the reference engine.
        bundle: name of the bundle's engine.
        gates: result of each gate; the report's verdict is the worst of them.
        divergences: differences at each position by prompt, teacher-forced on the reference's reply.
        greedy: comparison of the greedy replies, one per prompt.
        safe_set_sizes_differ: number of positions at which the engines report safe sets of different sizes.
        ties: the noise bands that decisions were judged by.
        are_ties_measured: whether the bands were derived from this measurement.
        subject: digests of what was compared: `manifest_sha256` of the bundle, `reference_fingerprint` of the weights,
            `prompts_sha256` of the token ids; empty for engines that were not opened from folders.
        settings: name of the steering that each prompt was compared under; empty if there was only one.
        config_differences: keys of the decoding config that differ.
        paths: largest difference between the bundle's logits computed token by token and in another way, by that way.
        first_difference: the first point in a forward pass that differs; None if all agree or it was not located.
    """

    reference: str
    bundle: str
    gates: tuple[GateResult, ...]
    divergences: Mapping[str, Divergence]
    greedy: tuple[GreedyComparison, ...]
    safe_set_sizes_differ: int
    ties: Ties = field(default_factory=lambda: ParityGates().ties(logit_noise=0.0, risk_noise=0.0))
    are_ties_measured: bool = False
    subject: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    config_differences: tuple[str, ...] = ()
    paths: Mapping[str, float] = field(default_factory=dict)
    first_difference: FirstDifference | None = None

    @property
    def verdict(self) -> ParityVerdict:
        """The worst verdict of all gates."""
        return worst([result.verdict for result in self.gates])

    @property
    def prompts(self) -> list[str]:
        """The prompts of the first setting, without their repetitions under other settings."""
        first = next(iter(self.settings.values()), "")
        return [name for name in self.divergences if self.settings.get(name, first) == first]

    @property
    def n_positions(self) -> int:
        """Number of compared decisions."""
        return sum(len(each.kl) for each in self.divergences.values())

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON that follows `parity.schema.json`; the arrays are left out."""
        first = self.first_difference
        return {
            "schema": SCHEMA,
            "reference": self.reference,
            "bundle": self.bundle,
            "subject": dict(self.subject),
            "verdict": str(self.verdict),
            "gates": [result.to_json() for result in self.gates],
            "first_difference": None if first is None else first.to_json(),
            "n_prompts": len(self.prompts),
            "n_positions": self.n_positions,
            "logit_difference": self._summary("logit"),
            "kl": self._summary("kl"),
            "risk_difference": self._summary("risk"),
            "token_risk_difference": self._summary("token_risk"),
            "top1_agreement": self._mean("top1_agrees"),
            "top10": self._top10(),
            "safe_set": self._safe_set(),
            "greedy": self._greedy(),
            "settings": self._settings(),
            "prompts": self._prompts(),
            "config_differences": list(self.config_differences),
            "paths": {name: scientific(value) for name, value in self.paths.items()},
        }

    def _columns(self, part: str) -> dict[str, NDArray[Any]]:
        return {name: getattr(each, part) for name, each in self.divergences.items()}

    def _known(self, part: str) -> dict[str, NDArray[Any]]:
        """Return a column by prompt, for the prompts where it was computed."""
        return {name: column for name, column in self._columns(part).items() if column is not None}

    def _all(self, part: str) -> NDArray[Any]:
        return np.concatenate([np.zeros(0), *self._columns(part).values()])

    def _mean(self, part: str) -> float | None:
        return scientific(float(self._all(part).mean())) if self.n_positions else None

    def _summary(self, part: str) -> dict[str, Any] | None:
        """Return mean, standard error and percentiles of a number over all positions, and where its maximum is."""
        columns = self._known(part)
        if not columns:
            return None
        values = np.concatenate(list(columns.values()))
        worst_name = max(columns, key=lambda name: columns[name].max())
        is_known = len(values) > 1 and bool(np.isfinite(values).all())
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if is_known else np.nan
        summary = {"mean": scientific(float(values.mean())), "standard_error": scientific(error)}
        summary |= {name: scientific(percentile(values, percent)) for name, percent in PERCENTILES}
        return {**summary, "worst": {"prompt": worst_name, "position": int(columns[worst_name].argmax())}}

    def _top10(self) -> dict[str, Any] | None:
        """Return the share of the reference's ten likeliest tokens among the bundle's, with and without near ties."""
        missing, gap = self._all("top10_missing"), self._all("top10_gap")
        if len(missing) != self.n_positions or not len(missing):
            return None
        apart = np.where(gap <= self.ties.logit, 0.0, missing)
        return {name: scientific(1 - float(each.mean()) / 10) for name, each in (("raw", missing), ("apart", apart))}

    def _safe_set(self) -> dict[str, Any]:
        flips = [
            {"prompt": prompt, **flip.to_json()} for prompt, each in self.divergences.items() for flip in each.flips
        ]
        n_decisions = sum(each.n_decisions for each in self.divergences.values())
        n_flipping = sum(bool(self.divergences[name].flips) for name in self.prompts)
        return {
            "n_decisions": n_decisions,
            "bands": {
                "logit": scientific(self.ties.logit),
                "risk": scientific(self.ties.risk),
                "set_by": "measured" if self.are_ties_measured else "gates",
            },
            "n_prompts_with_margins": len(self._known("threshold_distance")),
            "n_positions_near_threshold": self._n_within(self.ties.risk),
            "n_prompts_near_threshold": self._n_prompts_within(self.ties.risk),
            **self._certified(),
            "n_flips": len(flips),
            "n_near_ties": sum(flip["near_tie"] for flip in flips),
            "n_unsafe_let_in": sum(flip.is_unsafe for each in self.divergences.values() for flip in each.flips),
            "flip_share_at_most": _at_most(len(flips), n_decisions),
            "prompt_flip_share_at_most": _at_most(n_flipping, len(self.prompts)),
            "sizes_differ": self.safe_set_sizes_differ,
            "flips": flips[:LISTED],
        }

    def _certified(self) -> dict[str, Any]:
        """Return the share of positions where every risk is farther from the threshold than any risk differs."""
        moved, distance = self._known("token_risk"), self._known("threshold_distance")
        if not moved:
            return {"risk_moved_at_most": None, "certified_share": None}
        most = float(np.max([each.max(initial=0.0) for each in moved.values()]))
        share = float((np.concatenate([distance[name] for name in moved]) > most).mean())
        return {"risk_moved_at_most": scientific(most), "certified_share": scientific(share)}

    def _n_within(self, band: float) -> int | None:
        """Return the number of positions where a risk is within a band of the threshold; None if not computed."""
        known = self._known("threshold_distance").values()
        return sum(int((distance <= band).sum()) for distance in known) if known else None

    def _n_prompts_within(self, band: float) -> int | None:
        known = self._known("threshold_distance").values()
        return sum(bool((distance <= band).any()) for distance in known) if known else None

    def _greedy(self) -> dict[str, Any]:
        parted = [each for each in self.greedy if each.first_difference is not None]
        firsts = [each.first_difference for each in parted if each.first_difference is not None]
        return {
            "n_identical": len(self.greedy) - len(parted),
            "n": len(self.greedy),
            "median_first_difference": median(firsts) if firsts else None,
            "differences": [
                {
                    "prompt": each.prompt_id,
                    "position": each.first_difference,
                    "margin": None if each.margin is None else scientific(each.margin),
                    "near_tie": each.near_tie,
                }
                for each in parted[:LISTED]
            ],
        }

    def _prompts(self) -> list[dict[str, Any]]:
        """Return one row for each prompt and setting."""
        parted = {one.prompt_id: one.first_difference for one in self.greedy}
        return [
            {
                "prompt": name,
                "setting": self.settings.get(name, ""),
                "n_positions": len(each.kl),
                "max_logit_difference": scientific(float(each.logit.max())),
                "max_kl": scientific(float(each.kl.max())),
                "n_flips": len(each.flips),
                "n_near_ties": sum(flip.near_tie for flip in each.flips),
                "parts_at": parted.get(name),
            }
            for name, each in self.divergences.items()
        ]

    def _settings(self) -> list[dict[str, Any]]:
        """Return one row for each steering."""
        rows = []
        parted = {one.prompt_id for one in self.greedy if one.first_difference is not None}
        for setting in dict.fromkeys(self.settings.values()):
            names = [name for name in self.divergences if self.settings.get(name) == setting]
            parts = [self.divergences[name] for name in names]
            flips = [flip for part in parts for flip in part.flips]
            rows.append(
                {
                    "setting": setting,
                    "n_prompts": len(names),
                    "n_positions": sum(len(part.kl) for part in parts),
                    "max_logit_difference": scientific(float(np.max([part.logit.max() for part in parts]))),
                    "n_flips": len(flips),
                    "n_near_ties": sum(flip.near_tie for flip in flips),
                    "n_parted": len(parted.intersection(names)),
                }
            )
        return rows


def _at_most(count: int, n: int) -> float | None:
    return scientific(clopper_pearson(count, max(1, n), side="upper").high)
