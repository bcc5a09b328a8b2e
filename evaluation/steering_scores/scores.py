"""A judge's scores of one system's replies at every preference of a grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError
from prosocial.core.files import require_keys
from prosocial.core.protocols import Judge
from prosocial.steering.decoding.reply import Reply

from ..outcomes.outcome import judge_replies
from ..probes.probe import Probe
from .grid import Preference

Floats = NDArray[np.float64]
Answer = Callable[[Sequence[Probe], Sequence[Mapping[str, float]]], Sequence[Reply]]


@dataclass(frozen=True)
class GridScores:
    """The scores of one system on a grid.

    Attributes:
        system: name of the system.
        attributes: k attribute names.
        preferences: preferences of the grid.
        clusters: topic of each of the n probes.
        values: [preferences, n, k] scores in [0, 1].
    """

    system: str
    attributes: tuple[str, ...]
    preferences: tuple[Preference, ...]
    clusters: tuple[str, ...]
    values: Floats

    def means(self, weights: Floats | None = None) -> Floats:
        """Return the mean scores [preferences, k], weighted by `weights` [n] if given."""
        if weights is None:
            return np.asarray(self.values.mean(1))
        return np.asarray(np.einsum("pnk,n->pk", self.values, weights) / weights.sum())

    def at(self, preference: Preference) -> int:
        """Return the index of a preference.

        Raises:
            InputError: the grid does not contain the preference.
        """
        if preference not in self.preferences:
            raise InputError(
                f"the grid should contain the preference {list(preference)}, but it does not: score it on that grid"
            )
        return self.preferences.index(preference)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON that `from_json` reads back."""
        return {
            "system": self.system,
            "attributes": list(self.attributes),
            "preferences": [list(point) for point in self.preferences],
            "clusters": list(self.clusters),
            "values": np.round(self.values, 6).tolist(),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, where: str) -> Self:
        """Read scores back.

        Raises:
            InputError: a key is missing, or the shape of the values does not match the other keys.
        """
        require_keys(row, ("system", "attributes", "preferences", "clusters", "values"), where=where)
        values = np.array(row["values"], dtype=np.float64)
        expected = tuple(len(row[key]) for key in ("preferences", "clusters", "attributes"))
        if values.shape != expected:
            raise InputError(f"{where} should have values of shape {expected}, found {values.shape}")
        points = tuple(tuple(float(weight) for weight in point) for point in row["preferences"])
        return cls(row["system"], tuple(row["attributes"]), points, tuple(row["clusters"]), values)


def score_grid(
    system: str,
    attributes: Sequence[str],
    preferences: Sequence[Preference],
    probes: Sequence[Probe],
    *,
    answer: Answer,
    judge: Judge,
) -> GridScores:
    """Sample a system's reply to every probe at every preference, and judge the replies.

    Args:
        system: name of the system.
        attributes: attribute names, in the order of the weights of a preference.
        preferences: preferences, such as the points of a `PreferenceGrid`.
        probes: requests to answer.
        answer: returns n replies to n probes with n preferences by attribute. The sampling noise must depend only on
            the probe, so that systems and preferences are paired. It is called once, so that it can choose batches.
        judge: judge that scores every attribute.

    Raises:
        InputError: the judge does not score an attribute of a reply; the message names it.
    """
    named = [dict(zip(attributes, preference, strict=True)) for preference in preferences for _ in probes]
    every = [probe for _ in preferences for probe in probes]
    outcomes = judge_replies(every, answer(every, named), judge)
    missing = [name for name in attributes for one in outcomes if name not in one.attributes]
    if missing:
        raise InputError(f"judge {judge.name} should score {missing[0]!r} on every reply, found replies without it")
    values = np.array([[float(one.attributes[name]) for name in attributes] for one in outcomes])
    return GridScores(
        system,
        tuple(attributes),
        tuple(preferences),
        tuple(probe.cluster for probe in probes),
        values.reshape(len(preferences), len(probes), len(attributes)),
    )
