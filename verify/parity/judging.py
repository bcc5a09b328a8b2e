"""Judging the measurements of a bundle against the gates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .divergence import Divergence, Ties
from .entry_points import TITLES
from .gates import MOST_TIED_REPLIES, GateResult, ParityGates, ParityVerdict, gate

NOISE = 2.0  # the noise is this multiple of the 99th percentile over positions


@dataclass(frozen=True)
class GreedyComparison:
    """The greedy replies of both engines to one prompt.

    Attributes:
        prompt_id: id of the prompt.
        first_difference: index of the first token that differs; None if the replies are identical.
        margin: the reference's largest logit minus its second largest at that index; None if identical.
        near_tie: whether that margin lies inside the noise band.
    """

    prompt_id: str
    first_difference: int | None = None
    margin: float | None = None
    near_tie: bool = False

    def under(self, ties: Ties) -> "GreedyComparison":
        """Return the same comparison, judged by other bands."""
        return replace(self, near_tie=self.margin is not None and self.margin <= ties.logit)


def bands(divergences: Mapping[str, Divergence], gates: ParityGates) -> Ties:
    """Return the noise bands: those of the gates, or widths derived from the measurement."""
    parts = list(divergences.values())
    if not parts:
        return gates.ties(logit_noise=0.0, risk_noise=0.0)
    logit = np.concatenate([part.logit for part in parts])
    return gates.ties(
        logit_noise=NOISE * percentile(logit, 99.0), risk_noise=NOISE * percentile(token_risk(parts), 99.0)
    )


def token_risk(parts: Sequence[Divergence]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the largest difference of a plausible token's risk by position; of the reported risks if not computed."""
    known = [part.token_risk for part in parts if part.token_risk is not None]
    return np.concatenate(known or [part.risk for part in parts])


def judge(
    divergences: Mapping[str, Divergence], greedy: Sequence[GreedyComparison], gates: ParityGates, ties: Ties
) -> tuple[GateResult, ...]:
    """Return one result for each gated number; `near_tie` is already set by `ties` in both measurements."""
    parts = list(divergences.values())
    n_broken = sum(part.n_broken for part in parts)
    broken = GateResult("broken", "Numbers that are NaN or infinite", n_broken, 0, _none_of(n_broken), "always", "")
    rest = (*_distances(parts, gates), *_decisions(parts, gates, ties), *judge_replies(greedy, gates))
    return (broken, *(result for result in rest if result is not None))


def _distances(parts: Sequence[Divergence], gates: ParityGates) -> list[GateResult | None]:
    kl = np.concatenate([part.kl for part in parts])
    n_apart = int(np.isposinf(kl).sum())
    observed = {
        "max_logit_difference": ("Largest difference of a logit", _largest(part.logit for part in parts)),
        "max_risk_difference": ("Largest difference of a risk", _largest(part.risk for part in parts)),
        "kl_p99": ("KL divergence, 99th percentile (nats)", percentile(kl, 99.0)),
        "kl_mean": ("KL divergence, mean (nats)", float(kl[~np.isposinf(kl)].mean()) if n_apart < len(kl) else np.inf),
        "token_risk_p99": ("Difference of a token's risk, 99th percentile", percentile(token_risk(parts), 99.0)),
    }
    notes = {"kl_mean": f"without {n_apart} positions where no token is allowed by both" if n_apart else ""}
    return [
        None if getattr(gates, name) is None else gate(name, title, value, gates, note=notes.get(name, ""))
        for name, (title, value) in observed.items()
    ]


def _largest(columns: "Iterable[np.ndarray[Any, Any]]") -> float:
    """Return the largest number of all; NaN if one is NaN, which Python's `max` would drop."""
    return float(np.concatenate([np.asarray(column, np.float64) for column in columns]).max())


def _decisions(parts: Sequence[Divergence], gates: ParityGates, ties: Ties) -> list[GateResult]:
    flips = [flip for part in parts for flip in part.flips]
    near_flips = sum(flip.near_tie for flip in flips)
    disagree = np.concatenate([~part.top1_agrees for part in parts])
    near_top = disagree & (np.concatenate([part.top1_margin for part in parts]) <= ties.logit)
    if gates.logit_tie is None:  # a measured band would excuse the very differences it was measured from
        near_top = np.zeros_like(near_top)
    return [
        gate("flips", "Tokens that only one side calls safe", len(flips) - near_flips, gates, note=_more(near_flips)),
        gate(
            "top1_disagreement",
            "Share of positions whose most likely token differs",
            float((disagree & ~near_top).mean()),
            gates,
            note=_more(int(near_top.sum())),
        ),
    ]


def judge_replies(greedy: Sequence[GreedyComparison], gates: ParityGates) -> list[GateResult]:
    """Return the gate on greedy replies; ambiguous where more differ at near ties than rounding would explain."""
    if gates.greedy_divergences is None:
        return []
    parted = [one for one in greedy if one.first_difference is not None]
    near = sum(one.near_tie for one in parted)
    is_open = near > MOST_TIED_REPLIES * len(greedy)
    return [
        gate(
            "greedy_divergences",
            "Greedy replies that differ",
            len(parted) - near,
            gates,
            is_open=is_open,
            note=_more(near),
        )
    ]


def judge_beside(
    gates: ParityGates,
    *,
    failure: str | None,
    config_differences: Sequence[str],
    entry_points: Mapping[str, Sequence[str]],
    paths: Mapping[str, float],
) -> list[GateResult]:
    """Return the other gates: it runs to the end, config and entry points are equal, its computation paths agree."""
    results: list[GateResult] = []
    if failure is not None:
        results.append(GateResult("runs", "Runs that did not finish", 1, 0, ParityVerdict.FAIL, "always", failure))
    n_other, keys = len(config_differences), ", ".join(config_differences)
    results.append(GateResult("config", "Decoding settings that differ", n_other, 0, _none_of(n_other), "always", keys))
    for name, differing in entry_points.items():
        n, listed = len(differing), ", ".join(differing)
        results.append(GateResult(name, TITLES.get(name, name), n, 0, _none_of(n), "always", listed))
    if paths and gates.max_path_difference is not None:
        widest = max(paths, key=lambda name: paths[name])
        title = "Difference of a logit between computation paths"
        note = widest if paths[widest] > gates.max_path_difference else ""
        results.append(gate("max_path_difference", title, paths[widest], gates, note=note))
    return results


def _more(near: int) -> str:
    return f"{near} more at near ties" if near else ""


def _none_of(count: int) -> ParityVerdict:
    return ParityVerdict.FAIL if count else ParityVerdict.PASS


def percentile(values: "np.ndarray[Any, np.dtype[np.float64]]", percent: float) -> float:
    """Return the smallest value that at least `percent` % of the values do not exceed; not interpolated.

    Examples:
        >>> percentile(np.array([1.0, 2.0, 3.0, np.inf]), 50.0)
        2.0
    """
    return float(np.quantile(values, percent / 100, method="inverted_cdf"))
