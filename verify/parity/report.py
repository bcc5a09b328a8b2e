"""A judged comparison of a bundle with its reference, and its JSON."""

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

LISTED = 50  # flips and divergences in the JSON; the counts are of all
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
    """What a comparison found.

    Attributes:
        reference, bundle: names of the engines.
        gates: one result each; the verdict is the worst.
        divergences: by prompt, position by position (teacher forced on the reference's reply).
        greedy: one comparison per prompt.
        safe_set_sizes_differ: positions at which the engines report different sizes.
        ties: the bands that flips were judged by. are_ties_measured: whether they follow from this measurement.
        subject: digests of what was compared: `manifest_sha256` of the bundle, `reference_fingerprint` of the weights,
            `prompts_sha256` of the token ids; empty for engines that nobody named.
        settings: by prompt, under which steering it was compared; empty where there was one only.
        config_differences: keys of the decoding config that differ.
        paths: by another way to compute the same logits in the bundle, the largest difference.
        first_difference: where both part on the way through the model, where that was looked for.
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
        """The prompts, each under the first steering alone."""
        first = next(iter(self.settings.values()), "")
        return [name for name in self.divergences if self.settings.get(name, first) == first]

    @property
    def n_positions(self) -> int:
        """Number of compared decisions."""
        return sum(len(found.kl) for found in self.divergences.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: summaries, not the arrays; it follows `parity.schema.json`."""
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
        return {name: getattr(found, part) for name, found in self.divergences.items()}

    def _known(self, part: str) -> dict[str, NDArray[Any]]:
        """Return the columns of the prompts that were asked about a part."""
        return {name: column for name, column in self._columns(part).items() if column is not None}

    def _all(self, part: str) -> NDArray[Any]:
        return np.concatenate([np.zeros(0), *self._columns(part).values()])

    def _mean(self, part: str) -> float | None:
        return scientific(float(self._all(part).mean())) if self.n_positions else None

    def _summary(self, part: str) -> dict[str, Any] | None:
        """Return mean with its standard error, percentiles and the worst place of a number that each position has."""
        columns = self._known(part)
        if not columns:
            return None
        values = np.concatenate(list(columns.values()))
        worst_name = max(columns, key=lambda name: columns[name].max())
        finite = values[np.isfinite(values)]
        error = float(finite.std(ddof=1) / np.sqrt(len(finite))) if len(finite) > 1 else np.nan
        summary = {"mean": scientific(float(values.mean())), "standard_error": scientific(error)}
        summary |= {name: scientific(percentile(values, percent)) for name, percent in PERCENTILES}
        return {**summary, "worst": {"prompt": worst_name, "position": int(columns[worst_name].argmax())}}

    def _top10(self) -> dict[str, Any] | None:
        """Return the share of the reference's ten likeliest tokens that are among the bundle's, near ties apart."""
        missing, gap = self._all("top10_missing"), self._all("top10_gap")
        if len(missing) != self.n_positions or not len(missing):
            return None
        apart = np.where(gap <= self.ties.logit, 0.0, missing)
        return {name: scientific(1 - float(each.mean()) / 10) for name, each in (("raw", missing), ("apart", apart))}

    def _safe_set(self) -> dict[str, Any]:
        flips = [
            {"prompt": prompt, **flip.to_json()} for prompt, found in self.divergences.items() for flip in found.flips
        ]
        n_decisions = sum(found.n_decisions for found in self.divergences.values())
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
            "n_unsafe_let_in": sum(flip.is_unsafe for found in self.divergences.values() for flip in found.flips),
            "flip_share_at_most": _at_most(len(flips), n_decisions),
            "prompt_flip_share_at_most": _at_most(n_flipping, len(self.prompts)),
            "sizes_differ": self.safe_set_sizes_differ,
            "flips": flips[:LISTED],
        }

    def _certified(self) -> dict[str, Any]:
        """Return the share of positions where no risk lies as near to the threshold as any risk was seen to move."""
        moved, distance = self._known("token_risk"), self._known("threshold_distance")
        if not moved:
            return {"risk_moved_at_most": None, "certified_share": None}
        most = max(float(each.max(initial=0.0)) for each in moved.values())
        share = float((np.concatenate([distance[name] for name in moved]) > most).mean())
        return {"risk_moved_at_most": scientific(most), "certified_share": scientific(share)}

    def _n_within(self, band: float) -> int | None:
        """Positions where a token's risk comes as close to the threshold as a band is wide, where that was asked."""
        known = self._known("threshold_distance").values()
        return sum(int((distance <= band).sum()) for distance in known) if known else None

    def _n_prompts_within(self, band: float) -> int | None:
        known = self._known("threshold_distance").values()
        return sum(bool((distance <= band).any()) for distance in known) if known else None

    def _greedy(self) -> dict[str, Any]:
        parted = [found for found in self.greedy if found.first_difference is not None]
        firsts = [found.first_difference for found in parted if found.first_difference is not None]
        return {
            "n_identical": len(self.greedy) - len(parted),
            "n": len(self.greedy),
            "median_first_difference": median(firsts) if firsts else None,
            "differences": [
                {
                    "prompt": found.prompt_id,
                    "position": found.first_difference,
                    "margin": None if found.margin is None else scientific(found.margin),
                    "near_tie": found.near_tie,
                }
                for found in parted[:LISTED]
            ],
        }

    def _prompts(self) -> list[dict[str, Any]]:
        """Return one row for each prompt and setting."""
        parted = {one.prompt_id: one.first_difference for one in self.greedy}
        return [
            {
                "prompt": name,
                "setting": self.settings.get(name, ""),
                "n_positions": len(found.kl),
                "max_logit_difference": scientific(float(found.logit.max())),
                "max_kl": scientific(float(found.kl.max())),
                "n_flips": len(found.flips),
                "n_near_ties": sum(flip.near_tie for flip in found.flips),
                "parts_at": parted.get(name),
            }
            for name, found in self.divergences.items()
        ]

    def _settings(self) -> list[dict[str, Any]]:
        """Return the comparison under each steering."""
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
                    "max_logit_difference": scientific(max(float(part.logit.max()) for part in parts)),
                    "n_flips": len(flips),
                    "n_near_ties": sum(flip.near_tie for flip in flips),
                    "n_parted": len(parted.intersection(names)),
                }
            )
        return rows


def _at_most(count: int, n: int) -> float | None:
    return scientific(clopper_pearson(count, max(1, n), side="upper").high)
