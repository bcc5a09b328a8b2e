"""The comparison of a bundle with its reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prosocial.editing.errors import InputError

from ..statistics.proportions import clopper_pearson
from .batches import equal_length_batches, rows_in_memory
from .divergence import Divergence, divergence, top_margin
from .engines import ParityEngine, ScoredReply, StepOutputs
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
        near = [found.n_near_threshold for found in self.divergences.values() if found.n_near_threshold is not None]
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
                "n_near_threshold": sum(near) if near else None,
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
    divergences = {name: part.divergence for name, part in zip(prompts, parts, strict=True)}
    greedy = tuple(part.greedy for part in parts)
    sizes_differ = sum(part.sizes_differ for part in parts)
    return ParityReport(
        reference.name, bundle.name, _judge(divergences, greedy, gates), divergences, greedy, sizes_differ
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
        divergence(left.outputs, forced, ties=gates.ties),
        _greedy_comparison(name, left.tokens, right.tokens, left.outputs, gates),
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


def _greedy_comparison(
    name: str, reply: list[int], other: list[int], scored: StepOutputs, gates: ParityGates
) -> GreedyComparison:
    """Find where the replies part; there the reference's decisions are known, as the tokens before are the same."""
    if reply == other:
        return GreedyComparison(name)
    shared = min(len(reply), len(other))
    first = next((at for at in range(shared) if reply[at] != other[at]), shared)
    if first >= len(scored.logits):
        return GreedyComparison(name, first, None, False)
    margin = float(top_margin(scored.logits[first : first + 1])[0])
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
