"""The comparison of a bundle with its reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from prosocial.editing.errors import InputError

from ..statistics.interval import scientific
from ..statistics.proportions import clopper_pearson
from .batches import equal_length_batches, rows_in_memory
from .divergence import Divergence, Ties, divergence, top_margin
from .document import SCHEMA
from .engines import ParityEngine, ScoredReply, StepOutputs
from .gates import GateResult, ParityGates, Verdict, worst
from .judging import GreedyComparison, bands, judge, percentile

UNJUDGED = Ties(0.0, 0.0)  # the bands are known once everything is measured
LISTED = 50  # flips and divergences in the JSON; the counts are of all
PERCENTILES = (("median", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9), ("max", 100.0))


@dataclass(frozen=True)
class ParityReport:
    """What `measure_parity` found.

    Attributes:
        reference, bundle: names of the engines.
        gates: one result each; the verdict is the worst.
        divergences: by prompt, position by position (teacher forced on the reference's reply).
        greedy: one comparison per prompt.
        safe_set_sizes_differ: positions at which the engines report different sizes.
        subject: digests of what was compared: `manifest_sha256` of the bundle, `reference_fingerprint` of the weights,
            `prompts_sha256` of the
            token ids; empty for engines that nobody named.
        ties: the bands that flips were judged by. are_ties_measured: whether they follow from this measurement.
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

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all gates."""
        return worst([result.verdict for result in self.gates])

    @property
    def n_positions(self) -> int:
        """Number of compared decisions."""
        return sum(len(found.kl) for found in self.divergences.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: summaries, not the arrays."""
        parted = [found for found in self.greedy if found.first_difference is not None]
        firsts = [found.first_difference for found in parted if found.first_difference is not None]
        flips = [
            {"prompt": prompt, **flip.to_json()} for prompt, found in self.divergences.items() for flip in found.flips
        ]
        n_decisions = sum(found.n_decisions for found in self.divergences.values())
        bound = clopper_pearson(len(flips), max(1, n_decisions), side="upper").high
        return {
            "schema": SCHEMA,
            "reference": self.reference,
            "bundle": self.bundle,
            "subject": dict(self.subject),
            "verdict": str(self.verdict),
            "gates": [result.to_json() for result in self.gates],
            "n_prompts": len(self.divergences),
            "n_positions": self.n_positions,
            "logit_difference": _summary(self.divergences, "logit"),
            "kl": _summary(self.divergences, "kl"),
            "risk_difference": _summary(self.divergences, "risk"),
            "token_risk_difference": self._token_risk(),
            "top1_agreement": scientific(
                float(np.concatenate([f.top1_agrees for f in self.divergences.values()]).mean())
            ),
            "safe_set": {
                "n_decisions": n_decisions,
                "bands": {
                    "logit": scientific(self.ties.logit),
                    "risk": scientific(self.ties.risk),
                    "set_by": "measured" if self.are_ties_measured else "gates",
                },
                "n_positions_near_threshold": self._n_near_threshold(),
                "n_flips": len(flips),
                "n_near_ties": sum(flip["near_tie"] for flip in flips),
                "n_unsafe_let_in": sum(flip.is_unsafe for found in self.divergences.values() for flip in found.flips),
                "flip_share_at_most": scientific(bound),
                "sizes_differ": self.safe_set_sizes_differ,
                "flips": flips[:LISTED],
            },
            "greedy": {
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
            },
        }

    def _token_risk(self) -> dict[str, Any] | None:
        asked = all(part.token_risk is not None for part in self.divergences.values())
        return _summary(self.divergences, "token_risk") if asked else None

    def _n_near_threshold(self) -> int | None:
        """Positions where a token's risk comes as close to the threshold as the band is wide, where that was asked."""
        known = [part.threshold_distance for part in self.divergences.values() if part.threshold_distance is not None]
        return sum(int((distance <= self.ties.risk).sum()) for distance in known) if known else None


def measure_parity(
    reference: ParityEngine,
    bundle: ParityEngine,
    prompts: Mapping[str, Sequence[int]],
    *,
    gates: ParityGates | None = None,
    max_new_tokens: int = 32,
    on_progress: Callable[[int], None] = lambda n: None,
) -> ParityReport:
    """Compare two engines on prompts: teacher forced on the reference's greedy reply, and freely.

    Prompts are taken in batches of equal length, each of which is summarised before the next, so that memory does not
    grow with their number.

    Args:
        reference: the engine that is right by definition.
        bundle: the engine under test.
        prompts: token ids by prompt id.
        gates: thresholds; None: the defaults for float32.
        max_new_tokens: length of the replies.
        on_progress: is told the number of prompts done, after each batch.

    Raises:
        InputError: there is no prompt, `max_new_tokens` is below 1, or the outputs of the engines differ in shape
            (names both).
    """
    gates = gates or ParityGates()
    if not prompts:
        raise InputError("parity needs at least one prompt: there is none")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens should be at least 1, found {max_new_tokens}")
    found: dict[str, _Found] = {}
    for batch in _batches(reference, prompts, max_new_tokens):
        found |= _compare(reference, bundle, batch, gates, max_new_tokens)
        on_progress(len(found))
    parts = [found[name] for name in prompts]
    ties = bands({name: part.divergence for name, part in zip(prompts, parts, strict=True)}, gates)
    divergences = {name: part.divergence.under(ties) for name, part in zip(prompts, parts, strict=True)}
    greedy = tuple(part.greedy.under(ties) for part in parts)
    return ParityReport(
        reference.name,
        bundle.name,
        judge(divergences, greedy, gates, ties),
        divergences,
        greedy,
        sum(part.sizes_differ for part in parts),
        ties,
        gates.are_bands_measured,
    )


@dataclass(frozen=True)
class _Found:
    """What is kept of one prompt."""

    divergence: Divergence
    greedy: GreedyComparison
    sizes_differ: int


def _batches(
    reference: ParityEngine, prompts: Mapping[str, Sequence[int]], max_new_tokens: int
) -> list[dict[str, Sequence[int]]]:
    """Split the prompts by length, so that the decisions of a batch fit into memory."""
    names, ids = list(prompts), list(prompts.values())
    vocabulary_size = reference.score(ids[0], []).logits.shape[1]
    # a graph decides at each token of a prompt too
    batches = equal_length_batches(ids, lambda length: rows_in_memory(max(length, max_new_tokens), vocabulary_size))
    return [{names[index]: ids[index] for index in batch} for batch in batches]


def _compare(
    reference: ParityEngine,
    bundle: ParityEngine,
    prompts: Mapping[str, Sequence[int]],
    gates: ParityGates,
    max_new_tokens: int,
) -> dict[str, _Found]:
    """Compare the replies to some prompts; those of the bundle are scored again only where they differ."""
    ids = list(prompts.values())
    expected = reference.replies(ids, max_new_tokens=max_new_tokens)
    actual = bundle.replies(ids, max_new_tokens=max_new_tokens)
    found: dict[str, _Found] = {}
    for (name, prompt), left, right in zip(prompts.items(), expected, actual, strict=True):
        forced = right.outputs if left.tokens == right.tokens else bundle.score(prompt, left.tokens[:-1])
        found[name] = _found(name, left, right, forced, gates)
    return found


def _found(name: str, left: ScoredReply, right: ScoredReply, forced: StepOutputs, gates: ParityGates) -> _Found:
    _check_shapes(name, left.outputs, forced)
    return _Found(
        divergence(left.outputs, forced, ties=UNJUDGED, always_margins=gates.are_bands_measured),
        _greedy_comparison(name, left.tokens, right.tokens, left.outputs),
        int((left.outputs.safe_set_size != forced.safe_set_size).sum()),
    )


def _check_shapes(name: str, left: StepOutputs, right: StepOutputs) -> None:
    for part in ("logits", "risk", "safe_set_size"):
        expected, actual = getattr(left, part).shape, getattr(right, part).shape
        if expected != actual:
            raise InputError(
                f"both engines should give {part} of one shape on prompt {name!r}: the reference gives {expected}, the "
                f"bundle {actual}; was the bundle exported from this reference?"
            )


def _greedy_comparison(name: str, reply: list[int], other: list[int], scored: StepOutputs) -> GreedyComparison:
    """Find where the replies part; there the reference's decisions are known, as the tokens before are the same."""
    if reply == other:
        return GreedyComparison(name)
    shared = min(len(reply), len(other))
    first = next((at for at in range(shared) if reply[at] != other[at]), shared)
    if first >= len(scored.logits):
        return GreedyComparison(name, first)
    return GreedyComparison(name, first, float(top_margin(scored.logits[first : first + 1])[0]))


def _summary(found: Mapping[str, Divergence], part: str) -> dict[str, Any]:
    """Return mean, percentiles and the worst place of a number that each position has."""
    columns = {name: getattr(one, part) for name, one in found.items()}
    values = np.concatenate(list(columns.values()))
    worst_name = max(columns, key=lambda name: columns[name].max())
    summary: dict[str, Any] = {"mean": scientific(float(values.mean()))}
    summary |= {name: scientific(percentile(values, percent)) for name, percent in PERCENTILES}
    return summary | {"worst": {"prompt": worst_name, "position": int(columns[worst_name].argmax())}}
