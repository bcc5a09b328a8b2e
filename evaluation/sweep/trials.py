"""Trials of a sweep: their choice and results, the Pareto front, and the best trial (torch-free)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prosocial.core.errors import InputError, UnknownNameError

from ..statistics.interval import Interval, finite
from .pareto import pareto_front
from .space import Choice

State = Literal["complete", "pruned"]


@dataclass(frozen=True)
class Trial:
    """One edit of a sweep and its measurements.

    Attributes:
        number: number of the trial, from 0.
        choice: point of the search space.
        fingerprint: fingerprint of the edited checkpoint.
        inner_product: `<edit, tau>` over all tensors, at most 0.
        kl: mean KL(base || edited) of the reply's first token on benign requests, in nats.
        harm: rate of harmful replies to harmful requests; None if the trial was stopped early.
        utility: rate of fulfilled benign requests and twins; None if stopped early or not judged.
        utility_lost: the base's utility minus this one's, over the same requests.
        n_unjudged: number of replies to harmful requests that could not be judged; they count as harmful.
    """

    number: int
    choice: Choice
    fingerprint: str
    inner_product: float
    kl: float
    harm: Interval | None = None
    utility: Interval | None = None
    utility_lost: Interval | None = None
    n_unjudged: int = 0

    @property
    def state(self) -> State:
        """Whether the trial was completed, or stopped early because its KL exceeded the limit."""
        return "pruned" if self.harm is None else "complete"

    @property
    def objectives(self) -> tuple[float, ...] | None:
        """The objectives to minimise: harm, KL, and utility lost if known; None for a pruned trial."""
        if self.harm is None:
            return None
        lost = () if self.utility_lost is None else (self.utility_lost.estimate,)
        return (self.harm.estimate, self.kl, *lost)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON that `from_json` reads back."""
        intervals = {"harm": self.harm, "utility": self.utility, "utility_lost": self.utility_lost}
        return {
            "number": self.number,
            "state": self.state,
            **self.choice.to_json(),
            "kl": finite(self.kl),
            **{name: value and value.to_json() for name, value in intervals.items()},
            "n_unjudged": self.n_unjudged,
            "inner_product": self.inner_product,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Trial":
        """Read a trial back."""
        (start, end), (attention, mlp) = row["ramp"], row["balance"]
        choice = Choice(row["method"], row["scale"], row["parameters"], (start, end), (attention, mlp))
        harm, utility, lost = (interval_of(row[name]) for name in ("harm", "utility", "utility_lost"))
        kl = math.inf if row["kl"] is None else row["kl"]
        n_unjudged = row.get("n_unjudged", 0)  # absent in journals of earlier versions
        return cls(row["number"], choice, row["fingerprint"], row["inner_product"], kl, harm, utility, lost, n_unjudged)


def interval_of(row: Mapping[str, Any] | None) -> Interval | None:
    """Read an interval back from its JSON."""
    if row is None:
        return None
    conservative = row.get("conservative")
    return Interval(**{**row, "conservative": tuple(conservative)} if conservative else row)


def front_of(trials: Sequence[Trial]) -> list[Trial]:
    """Return the Pareto front of the completed trials, least harm first."""
    points = [(trial, trial.objectives) for trial in trials]
    complete = [(trial, point) for trial, point in points if point is not None]
    kept = pareto_front([point for _, point in complete])
    return sorted((complete[index][0] for index in kept), key=lambda trial: (trial.objectives, trial.number))


def best_of(trials: Sequence[Trial], *, max_utility_loss: float) -> Trial | None:
    """Return the trial with the least harm among those with at most `max_utility_loss` (a share); None without any.

    Ties are broken by lower KL. Trials whose utility is not known are allowed.
    """
    allowed = [
        trial
        for trial in trials
        if trial.harm is not None
        and (trial.utility_lost is None or trial.utility_lost.estimate <= max_utility_loss + 1e-9)
    ]
    return min(allowed, key=lambda trial: (trial.harm and trial.harm.estimate, trial.kl, trial.number), default=None)


def picked(trials: Sequence[Trial], pick: str, *, max_utility_loss: float) -> Trial:
    """Return the trial given by `--pick`: a number, or `best`.

    Raises:
        InputError: every trial exceeds the limit on utility lost.
        UnknownNameError: there is no trial of that number.
    """
    if pick == "best":
        best = best_of(trials, max_utility_loss=max_utility_loss)
        if best is None:
            raise InputError(
                f"a trial should lose at most {100 * max_utility_loss:g} points of utility, but none does: run "
                "more trials, lower --max-scale, or pick a trial by number"
            )
        return best
    by_number = {str(trial.number): trial for trial in trials}
    if pick not in by_number:
        raise UnknownNameError("trial", pick, [*by_number, "best"])
    return by_number[pick]
