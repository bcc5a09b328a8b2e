"""How far two engines are apart, position by position (pure functions of arrays)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engines import Margins, StepOutputs

Floats = NDArray[np.float64]
Logits = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Ties:
    """Bands inside which a decision could go either way by rounding alone.

    Attributes:
        logit: a margin between two logits; twice what one logit may move.
        risk: a margin between a risk and the threshold.
    """

    logit: float
    risk: float


@dataclass(frozen=True)
class Flip:
    """A token that one engine lets in and the other keeps out.

    Attributes:
        position: index of the decision: 0 is the first token of the reply.
        token: its id.
        safe_in: the engine that lets it in, "reference" or "bundle".
        near_tie: whether the reference's own margin lies inside the band.
    """

    position: int
    token: int
    safe_in: str
    near_tie: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "position": self.position,
            "token": self.token,
            "safe_in": self.safe_in,
            "near_tie": self.near_tie,
        }


@dataclass(frozen=True)
class Divergence:
    """Two engines on one sequence of S decisions.

    Attributes:
        logit: [S] largest difference of a logit that is finite on both sides.
        kl: [S] KL(reference || bundle) in nats, both renormalised on the tokens that both let in; infinite if none is.
        top1_agrees: [S] whether the most likely token is the same.
        top1_margin: [S] the reference's first logit minus its second.
        risk: [S] largest difference of a risk; 0 without a gate.
        flips: tokens in one safe set only.
        n_decisions: tokens that at least one engine lets in.
        n_near_threshold: tokens whose risk in the reference lies inside the band around the threshold; None where the
            safe sets are the same, as the margins are not computed then.
        n_broken: NaN or plus infinity among the logits and risks of either engine.
    """

    logit: Floats
    kl: Floats
    top1_agrees: NDArray[np.bool_]
    top1_margin: Floats
    risk: Floats
    flips: tuple[Flip, ...]
    n_decisions: int
    n_near_threshold: int | None
    n_broken: int


def divergence(reference: StepOutputs, bundle: StepOutputs, *, ties: Ties) -> Divergence:
    """Compare two engines on the same tokens.

    Logits [S, V], risks [S, C] of both sides must have equal shapes.
    """
    left, right = reference.logits, bundle.logits
    in_left, in_right = np.isfinite(left), np.isfinite(right)
    difference, kl = _differences(left, right, in_left & in_right)
    risk = np.abs(reference.risk.astype(np.float64) - bundle.risk.astype(np.float64))
    margins = reference.margins() if reference.margins and (in_left != in_right).any() else None
    return Divergence(
        logit=difference,
        kl=kl,
        top1_agrees=_best(left) == _best(right),
        top1_margin=top_margin(left),
        risk=risk.max(axis=1) if risk.shape[1] else np.zeros(len(risk)),
        flips=_flips(reference, bundle, margins, ties),
        n_decisions=int((in_left | in_right).sum()),
        n_near_threshold=None if margins is None else int((np.abs(margins.safety) <= ties.risk).sum()),
        n_broken=sum(_n_broken(part) for part in (reference.logits, bundle.logits, reference.risk, bundle.risk)),
    )


def top_margin(logits: Logits) -> Floats:
    """Return [S], the first logit minus the second of each row [S, V]; infinite where only one token is let in."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    clean = np.where(np.isnan(logits), -np.inf, logits)
    two = np.partition(clean, -2, axis=1)[:, -2:].astype(np.float64)
    return np.where(np.isfinite(two[:, 0]), two[:, 1] - np.where(np.isfinite(two[:, 0]), two[:, 0], 0.0), np.inf)


def _best(logits: Logits) -> NDArray[np.intp]:
    best: NDArray[np.intp] = np.argmax(np.where(np.isnan(logits), -np.inf, logits), axis=1)
    return best


def _differences(left: Logits, right: Logits, both: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the largest difference of a logit [S] and KL [S], on the tokens that both let in, usually few.

    KL is taken in float64: in float32 its rounding is as large as a good bundle's median.
    """
    n_rows, rows = len(both), np.nonzero(both)[0]  # of each token let in
    ours, theirs = left[both].astype(np.float64), right[both].astype(np.float64)
    largest = np.zeros(n_rows)
    np.maximum.at(largest, rows, np.abs(ours - theirs))
    log_p, log_q = _log_softmax(ours, rows, n_rows), _log_softmax(theirs, rows, n_rows)
    kl = np.bincount(rows, np.exp(log_p) * (log_p - log_q), n_rows)
    return largest, np.where(both.any(axis=1), np.maximum(kl, 0.0), np.inf)


def _log_softmax(logits: Floats, rows: NDArray[np.intp], n_rows: int) -> Floats:
    """Return log-softmax of logits [N] that belong to rows [N], over each row."""
    peak = np.full(n_rows, -np.inf)
    np.maximum.at(peak, rows, logits)
    shifted = logits - peak[rows]
    total = np.bincount(rows, np.exp(shifted), n_rows)
    log_softmax: Floats = shifted - np.log(total[rows])
    return log_softmax


def _flips(reference: StepOutputs, bundle: StepOutputs, margins: Margins | None, ties: Ties) -> tuple[Flip, ...]:
    left, right = np.isfinite(reference.logits), np.isfinite(bundle.logits)
    flips: list[Flip] = []
    for position in np.flatnonzero((left != right).any(axis=1)):
        found = [
            Flip(
                position=int(position),
                token=int(token),
                safe_in="reference" if left[position, token] else "bundle",
                near_tie=margins is not None and _is_near_tie(margins, int(position), int(token), ties),
            )
            for token in np.flatnonzero(left[position] != right[position])
        ]
        one_is_closed = (reference.safe_set_size[position] == 0) != (bundle.safe_set_size[position] == 0)
        flips += _excuse_end_tokens(found, margins) if one_is_closed else found
    return tuple(flips)


def _excuse_end_tokens(flips: list[Flip], margins: Margins | None) -> list[Flip]:
    """Where one side found nothing safe, its end tokens opened in consequence: they share the other flips' cause."""
    exempt = [margins is not None and bool(np.isposinf(margins.safety[flip.position, flip.token])) for flip in flips]
    causes = [flip for flip, is_end in zip(flips, exempt, strict=True) if not is_end]
    excused = bool(causes) and all(flip.near_tie for flip in causes)
    return [
        replace(flip, near_tie=True) if is_end and excused else flip for flip, is_end in zip(flips, exempt, strict=True)
    ]


def _is_near_tie(margins: Margins, position: int, token: int, ties: Ties) -> bool:
    """Whether rounding could have turned the reference's decision on a token.

    A token that was let in turns if one of its two margins is small; one that was kept out turns only if every margin
    that kept it out is small. A risk that was not computed excuses nothing by itself.
    """
    plausibility, safety = float(margins.plausibility[position, token]), float(margins.safety[position, token])
    if plausibility > 0 and safety >= 0:
        return plausibility <= ties.logit or safety <= ties.risk
    if np.isnan(safety):
        return abs(plausibility) <= ties.logit
    return plausibility >= -ties.logit and safety >= -ties.risk


def _n_broken(values: NDArray[np.float32]) -> int:
    return int((np.isnan(values) | np.isposinf(values)).sum())
