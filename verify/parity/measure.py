"""The comparison of a bundle with its reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prosocial.editing.errors import InputError

from ..statistics.proportions import clopper_pearson
from .divergence import Divergence, divergence, top_margin
from .engines import ParityEngine, StepOutputs
from .gates import GateResult, ParityGates, Verdict, gate, scientific, worst

SCHEMA = "prosocial.parity_report/1"
LISTED = 50  # flips and divergences in the JSON; the counts are of all
PERCENTILES = (("median", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9), ("max", 100.0))


@dataclass(frozen=True)
class GreedyComparison:
    """The most likely replies of both engines to one prompt.

    Attributes:
        prompt_id: the prompt.
        first_difference: index of the first token that differs; None if the replies are identical.
        margin: the reference's first logit minus its second at that place; None if identical.
        near_tie: whether that margin lies inside the band.
    """

    prompt_id: str
    first_difference: int | None = None
    margin: float | None = None
    near_tie: bool = False


@dataclass(frozen=True)
class ParityReport:
    """What `measure_parity` found.

    Attributes:
        reference, bundle: names of the engines.
        gates: one result each; the verdict is the worst.
        divergences: by prompt, position by position (teacher forced on the reference's reply).
        greedy: one comparison per prompt.
        safe_set_sizes_differ: positions at which the engines report different sizes.
    """

    reference: str
    bundle: str
    gates: tuple[GateResult, ...]
    divergences: Mapping[str, Divergence]
    greedy: tuple[GreedyComparison, ...]
    safe_set_sizes_differ: int

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
        flips = [
            {"prompt": prompt, **flip.to_json()} for prompt, found in self.divergences.items() for flip in found.flips
        ]
        n_decisions = sum(found.n_decisions for found in self.divergences.values())
        bound = clopper_pearson(len(flips), max(1, n_decisions), side="upper").high
        return {
            "schema": SCHEMA,
            "reference": self.reference,
            "bundle": self.bundle,
            "verdict": str(self.verdict),
            "gates": [result.to_json() for result in self.gates],
            "n_prompts": len(self.divergences),
            "n_positions": self.n_positions,
            "logit_difference": _summary(self.divergences, "logit"),
            "kl": _summary(self.divergences, "kl"),
            "risk_difference": _summary(self.divergences, "risk"),
            "top1_agreement": scientific(
                float(np.concatenate([f.top1_agrees for f in self.divergences.values()]).mean())
            ),
            "safe_set": {
                "n_decisions": n_decisions,
                "n_near_threshold": sum(found.n_near_threshold for found in self.divergences.values()),
                "n_flips": len(flips),
                "n_near_ties": sum(flip["near_tie"] for flip in flips),
                "flip_share_at_most": scientific(bound),
                "sizes_differ": self.safe_set_sizes_differ,
                "flips": flips[:LISTED],
            },
            "greedy": {
                "n_identical": len(self.greedy) - len(parted),
                "n": len(self.greedy),
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


def measure_parity(
    reference: ParityEngine,
    bundle: ParityEngine,
    prompts: Mapping[str, Sequence[int]],
    *,
    gates: ParityGates | None = None,
    max_new_tokens: int = 32,
) -> ParityReport:
    """Compare two engines on prompts: teacher forced on the reference's greedy reply, and freely.

    Args:
        reference: the engine that is right by definition.
        bundle: the engine under test.
        prompts: token ids by prompt id.
        gates: thresholds; None: the defaults for float32.
        max_new_tokens: length of the replies.

    Raises:
        InputError: there is no prompt, or the outputs of the engines differ in shape (names both).
    """
    gates = gates or ParityGates()
    if not prompts:
        raise InputError("parity needs at least one prompt: there is none")
    found: dict[str, Divergence] = {}
    greedy: list[GreedyComparison] = []
    sizes_differ = 0
    for name, prompt in prompts.items():
        reply = reference.greedy(prompt, max_new_tokens=max_new_tokens)
        left, right = reference.score(prompt, reply[:-1]), bundle.score(prompt, reply[:-1])
        _check_shapes(name, left, right)
        found[name] = divergence(left, right, ties=gates.ties)
        sizes_differ += int((left.safe_set_size != right.safe_set_size).sum())
        other = bundle.greedy(prompt, max_new_tokens=max_new_tokens)
        greedy.append(_greedy_comparison(name, reply, other, left, gates))
    results = _judge(found, greedy, gates)
    return ParityReport(reference.name, bundle.name, results, found, tuple(greedy), sizes_differ)


def _check_shapes(name: str, left: StepOutputs, right: StepOutputs) -> None:
    for part in ("logits", "risk", "safe_set_size"):
        expected, actual = getattr(left, part).shape, getattr(right, part).shape
        if expected != actual:
            raise InputError(
                f"both engines should give {part} of one shape on prompt {name!r}: the reference gives {expected}, the "
                f"bundle {actual}; was the bundle exported from this reference?"
            )


def _greedy_comparison(
    name: str, reply: Sequence[int], other: Sequence[int], scored: StepOutputs, gates: ParityGates
) -> GreedyComparison:
    """Find where the replies part; there the reference's decisions are known, as the tokens before are the same."""
    if list(reply) == list(other):
        return GreedyComparison(name)
    shared = min(len(reply), len(other))
    first = next((at for at in range(shared) if reply[at] != other[at]), shared)
    if first >= len(scored.logits):
        return GreedyComparison(name, first, None, False)
    margin = float(top_margin(scored.logits[first : first + 1].astype(np.float64))[0])
    return GreedyComparison(name, first, margin, margin <= gates.logit_tie)


def _judge(
    found: Mapping[str, Divergence], greedy: Sequence[GreedyComparison], gates: ParityGates
) -> tuple[GateResult, ...]:
    parts = list(found.values())
    n_broken = sum(part.n_broken for part in parts)
    flips = [flip for part in parts for flip in part.flips]
    near_flips = sum(flip.near_tie for flip in flips)
    disagree = np.concatenate([~part.top1_agrees for part in parts])
    near_top = disagree & (np.concatenate([part.top1_margin for part in parts]) <= gates.logit_tie)
    parted = [one for one in greedy if one.first_difference is not None]
    near_parted = sum(one.near_tie for one in parted)
    kl = np.concatenate([part.kl for part in parts])
    return (
        GateResult("broken", "Numbers that are NaN or infinite", n_broken, 0, _none_of(n_broken), "always", ""),
        gate(
            "max_logit_difference",
            "Largest difference of a logit",
            float(max(part.logit.max() for part in parts)),
            gates,
        ),
        gate("kl_p99", "KL divergence, 99th percentile (nats)", _percentile(kl, 99.0), gates),
        gate(
            "flips",
            "Tokens that only one side calls safe",
            len(flips) - near_flips,
            gates,
            note=f"{near_flips} more at near ties" if near_flips else "",
        ),
        gate(
            "top1_disagreements",
            "Positions with another most likely token",
            int(disagree.sum() - near_top.sum()),
            gates,
            note=f"{int(near_top.sum())} more at near ties" if near_top.any() else "",
        ),
        gate(
            "greedy_divergences",
            "Greedy replies that part",
            len(parted) - near_parted,
            gates,
            near_ties=near_parted,
            note=f"{near_parted} more at near ties" if near_parted else "",
        ),
    )


def _none_of(count: int) -> Verdict:
    return Verdict.FAIL if count else Verdict.PASS


def _percentile(values: "np.ndarray[Any, np.dtype[np.float64]]", percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (no interpolation: infinity stays)."""
    return float(np.quantile(values, percent / 100, method="inverted_cdf"))


def _summary(found: Mapping[str, Divergence], part: str) -> dict[str, Any]:
    """Return mean, percentiles and the worst place of a number that each position has."""
    columns = {name: getattr(one, part) for name, one in found.items()}
    values = np.concatenate(list(columns.values()))
    worst_name = max(columns, key=lambda name: columns[name].max())
    summary: dict[str, Any] = {"mean": scientific(float(values.mean()))}
    summary |= {name: scientific(_percentile(values, percent)) for name, percent in PERCENTILES}
    return summary | {"worst": {"prompt": worst_name, "position": int(columns[worst_name].argmax())}}
