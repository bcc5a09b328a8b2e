"""The differences between two engines at each position (pure functions of arrays)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.evaluation.statistics.interval import scientific

from .engines import Margins, StepOutputs

Floats = NDArray[np.float64]
Logits = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Ties:
    """Widths of the bands within which rounding alone can change a decision.

    Attributes:
        logit: largest margin between two logits that counts as a tie; twice the error allowed for one logit.
        risk: largest distance of a token's risk, summed over the categories, from the threshold that counts as a tie.
    """

    logit: float
    risk: float


@dataclass(frozen=True)
class Flip:
    """A token that is in the safe set of one engine and not in the other's.

    Attributes:
        position: index of the decision: 0 is the first token of the reply.
        token: token id.
        safe_in: engine whose safe set holds the token, "reference" or "bundle".
        near_tie: whether the reference's margin lies inside the band.
        plausibility: the reference's plausibility margin, as in `Margins`; NaN where it was not computed.
        safety: the reference's safety margin, as in `Margins`; NaN where it was not computed.
        one_is_closed: whether the safe set of one engine is empty at this position, so that it allows only end tokens.
    """

    position: int
    token: int
    safe_in: str
    near_tie: bool
    plausibility: float = np.nan
    safety: float = np.nan
    one_is_closed: bool = False

    @property
    def is_unsafe(self) -> bool:
        """Whether the bundle allows a token whose risk in the reference is above the threshold."""
        return self.safe_in == "bundle" and self.safety < 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "position": self.position,
            "token": self.token,
            "safe_in": self.safe_in,
            "near_tie": self.near_tie,
            "plausibility_margin": scientific(self.plausibility),
            "safety_margin": scientific(self.safety),
        }


@dataclass(frozen=True)
class Divergence:
    """The differences between two engines on one sequence of S decisions.

    Attributes:
        logit: [S] largest difference of a logit that is finite on both sides.
        kl: [S] KL(reference || bundle) in nats, both renormalised on the tokens that both allow; infinite if none is.
        top1_agrees: [S] whether the most likely token is the same.
        top1_margin: [S] the reference's largest logit minus its second largest.
        risk: [S] largest difference of a risk; 0 without a gate.
        flips: tokens in only one of the two safe sets.
        n_decisions: number of tokens that at least one engine allows, summed over positions.
        threshold_distance: [S] smallest distance between any token's risk and the threshold in the reference; None
            where the margins were not computed.
        n_broken: number of NaN and plus infinity among the logits and risks of both engines.
        token_risk: [S] largest difference of a plausible token's risk, summed over the categories; None where the
            margins of either engine were not computed.
        top10_missing: [S] how many of the reference's ten most likely tokens are not among the bundle's.
        top10_gap: [S] logit of the likeliest missing token minus the reference's eleventh; 0 where none is missing.
    """

    logit: Floats
    kl: Floats
    top1_agrees: NDArray[np.bool_]
    top1_margin: Floats
    risk: Floats
    flips: tuple[Flip, ...]
    n_decisions: int
    threshold_distance: Floats | None
    n_broken: int
    token_risk: Floats | None = None
    top10_missing: Floats = field(default_factory=lambda: np.zeros(0))
    top10_gap: Floats = field(default_factory=lambda: np.zeros(0))

    def under(self, ties: Ties) -> "Divergence":
        """Return the same measurement with its flips judged by other bands."""
        return replace(self, flips=_judged(self.flips, ties))


def divergence(reference: StepOutputs, bundle: StepOutputs, *, ties: Ties, always_margins: bool = False) -> Divergence:
    """Compare two engines on the same tokens.

    Logits [S, V] and risks [S, C] of both engines must have equal shapes. Margins cost one more forward pass, so those
    of the reference are computed only where the safe sets differ, or everywhere with `always_margins`.
    """
    left, right = reference.logits, bundle.logits
    in_left, in_right = np.isfinite(left), np.isfinite(right)
    difference, kl = _differences(left, right, in_left & in_right)
    risk = np.abs(reference.risk.astype(np.float64) - bundle.risk.astype(np.float64))
    wanted = always_margins or bool((in_left != in_right).any())
    margins = reference.margins() if reference.margins and wanted else None
    others = bundle.margins() if bundle.margins and always_margins else None
    missing, gap = _top(left, right)
    return Divergence(
        logit=difference,
        kl=kl,
        top1_agrees=_best(left) == _best(right),
        top1_margin=top_margin(left),
        risk=risk.max(axis=1) if risk.shape[1] else np.zeros(len(risk)),
        flips=_judged(_flips(reference, bundle, margins), ties),
        n_decisions=int((in_left | in_right).sum()),
        threshold_distance=None if margins is None else _threshold_distance(margins),
        n_broken=sum(_n_broken(part) for part in (reference.logits, bundle.logits, reference.risk, bundle.risk)),
        token_risk=None if margins is None or others is None else _token_risk(margins, others),
        top10_missing=missing,
        top10_gap=gap,
    )


def top_margin(logits: Logits) -> Floats:
    """Return [S], the largest minus the second largest logit of each row [S, V]; infinite where only one is finite.

    Examples:
        >>> top_margin(np.array([[1.0, 3.0, 2.5], [0.0, -np.inf, -np.inf]])).tolist()
        [0.5, inf]
    """
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    clean = np.where(np.isnan(logits), -np.inf, logits)
    two = np.partition(clean, -2, axis=1)[:, -2:].astype(np.float64)
    return np.where(np.isfinite(two[:, 0]), two[:, 1] - np.where(np.isfinite(two[:, 0]), two[:, 0], 0.0), np.inf)


def _top(left: Logits, right: Logits, n: int = 10) -> tuple[Floats, Floats]:
    """Return [S] how many of the reference's n likeliest tokens are missing from the bundle's, and [S] the gap."""
    missing, gap = np.zeros(len(left)), np.zeros(len(left))
    for row, (ours, theirs) in enumerate(zip(left, right, strict=True)):
        finite = np.flatnonzero(np.isfinite(ours))
        order = finite[np.argsort(-ours[finite], kind="stable")]
        likely = np.flatnonzero(np.isfinite(theirs))
        theirs_first = likely[np.argsort(-theirs[likely], kind="stable")[:n]]
        lost = [at for at, token in enumerate(order[:n]) if token not in theirs_first]
        if lost:
            next_one = ours[order[n]] if len(order) > n else -np.inf
            missing[row], gap[row] = len(lost), float(ours[order[lost[0]]] - next_one)
    return missing, gap


def _best(logits: Logits) -> NDArray[np.intp]:
    best: NDArray[np.intp] = np.argmax(np.where(np.isnan(logits), -np.inf, logits), axis=1)
    return best


def _differences(left: Logits, right: Logits, both: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the largest logit difference [S] and KL [S] on the tokens that both engines allow, usually few.

    KL is computed in float64: in float32 its rounding error is as large as the median KL of a good bundle.
    """
    n_rows, rows = len(both), np.nonzero(both)[0]  # the row of each allowed token
    ours, theirs = left[both].astype(np.float64), right[both].astype(np.float64)
    largest = np.zeros(n_rows)
    np.maximum.at(largest, rows, np.abs(ours - theirs))
    log_p, log_q = _log_softmax(ours, rows, n_rows), _log_softmax(theirs, rows, n_rows)
    kl = np.bincount(rows, np.exp(log_p) * (log_p - log_q), n_rows)
    return largest, np.where(both.any(axis=1), np.maximum(kl, 0.0), np.inf)


def _log_softmax(logits: Floats, rows: NDArray[np.intp], n_rows: int) -> Floats:
    """Return the log-softmax of logits [N] within each row; `rows` [N] is the row of each logit."""
    peak = np.full(n_rows, -np.inf)
    np.maximum.at(peak, rows, logits)
    shifted = logits - peak[rows]
    total = np.bincount(rows, np.exp(shifted), n_rows)
    log_softmax: Floats = shifted - np.log(total[rows])
    return log_softmax


def _token_risk(first: Margins, second: Margins) -> Floats:
    """Return [S], the largest difference of a token's risk, over the tokens whose risk both engines computed.

    It is infinite where one of them computed a risk that is NaN or infinite (safety of minus infinity).
    """
    both = np.isfinite(first.safety) & np.isfinite(second.safety)
    left, right = (np.where(both, side.safety, 0.0).astype(np.float64) for side in (first, second))
    broken = (np.isneginf(first.safety) | np.isneginf(second.safety)).any(axis=1)
    largest: Floats = np.where(broken, np.inf, np.abs(left - right).max(axis=1))
    return largest


def _threshold_distance(margins: Margins) -> Floats:
    distance: Floats = np.where(np.isnan(margins.safety), np.inf, np.abs(margins.safety)).min(axis=1)
    return distance.astype(np.float64)


def _flips(reference: StepOutputs, bundle: StepOutputs, margins: Margins | None) -> list[Flip]:
    left, right = np.isfinite(reference.logits), np.isfinite(bundle.logits)
    closed = (reference.safe_set_size == 0) != (bundle.safe_set_size == 0)
    return [
        Flip(
            position=int(position),
            token=int(token),
            safe_in="reference" if left[position, token] else "bundle",
            near_tie=False,
            plausibility=np.nan if margins is None else float(margins.plausibility[position, token]),
            safety=np.nan if margins is None else float(margins.safety[position, token]),
            one_is_closed=bool(closed[position]),
        )
        for position, token in zip(*np.nonzero(left != right), strict=True)
    ]


def _judged(flips: Sequence[Flip], ties: Ties) -> tuple[Flip, ...]:
    """Return the flips with `near_tie` set.

    Where one side's safe set is empty, it allows the end tokens as a consequence: those flips count as near ties if all
    other flips at that position do.
    """
    judged = [replace(flip, near_tie=_is_near_tie(flip.plausibility, flip.safety, ties)) for flip in flips]
    causes: dict[int, list[bool]] = {}
    for flip in judged:
        if not np.isposinf(flip.safety):
            causes.setdefault(flip.position, []).append(flip.near_tie)
    excused = {position for position, near in causes.items() if all(near)}
    return tuple(
        replace(flip, near_tie=True)
        if flip.one_is_closed and np.isposinf(flip.safety) and flip.position in excused
        else flip
        for flip in judged
    )


def _is_near_tie(plausibility: float, safety: float, ties: Ties) -> bool:
    """Whether rounding could have changed the reference's decision on a token.

    An allowed token can change if either margin is small; an excluded one only if every negative margin is small. Where
    the risk was not computed, only the plausibility margin counts.
    """
    if plausibility > 0 and safety >= 0:
        return plausibility <= ties.logit or safety <= ties.risk
    if np.isnan(safety):
        return abs(plausibility) <= ties.logit
    return plausibility >= -ties.logit and safety >= -ties.risk


def _n_broken(values: NDArray[np.float32]) -> int:
    return int((np.isnan(values) | np.isposinf(values)).sum())
