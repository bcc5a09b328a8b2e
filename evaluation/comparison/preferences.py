"""The effect of a preference on its attribute: all weight on the attribute compared with equal weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prosocial.core.errors import InputError

from ..outcomes.outcome import Outcome
from ..probes.probe import Probe
from ..statistics.clustered import clustered_difference, clustered_mean
from ..statistics.interval import Interval


@dataclass(frozen=True)
class PreferenceEffect:
    """The effect on an attribute of putting all preference weight on it.

    Attributes:
        attribute: name of the attribute.
        uniform: mean score with equal weights.
        corner: mean score with all weight on the attribute.
        difference: mean of corner minus uniform over the same probes.
    """

    attribute: str
    uniform: Interval
    corner: Interval
    difference: Interval

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "attribute": self.attribute,
            "uniform": self.uniform.to_json(),
            "corner": self.corner.to_json(),
            "difference": self.difference.to_json(),
        }


def preference_effects(
    probes: Sequence[Probe],
    outcomes_uniform: Sequence[Outcome],
    outcomes_by_attribute: Mapping[str, Sequence[Outcome]],
    *,
    confidence: float = 0.95,
) -> list[PreferenceEffect]:
    """Return the effect of each attribute's preference: all weight on it versus equal weights, paired by probe.

    Pairs without a score of the attribute on both sides are left out.

    Args:
        probes: the answered probes, which define the clusters.
        outcomes_uniform: outcomes with equal weights.
        outcomes_by_attribute: outcomes with all weight on an attribute, by attribute.
        confidence: nominal coverage.

    Raises:
        InputError: no pair has scores of an attribute, or an outcome's probe is not among the probes.
    """
    clusters = {probe.id: probe.cluster for probe in probes}
    uniform = {(outcome.probe_id, outcome.sample): outcome for outcome in outcomes_uniform}
    effects: list[PreferenceEffect] = []
    for attribute, outcomes in outcomes_by_attribute.items():
        corner = {(outcome.probe_id, outcome.sample): outcome for outcome in outcomes}
        keys = [
            key
            for key in sorted(uniform.keys() & corner.keys())
            if attribute in uniform[key].attributes and attribute in corner[key].attributes
        ]
        if not keys:
            raise InputError(
                f"the judge should score {attribute!r} on the same probes at both preferences, but no pair has both"
            )
        unknown = sorted({key[0] for key in keys} - clusters.keys())
        if unknown:
            raise InputError(f"outcomes should be of the given probes, found {unknown[0]!r}, which is not among them")
        before = [float(uniform[key].attributes[attribute]) for key in keys]
        after = [float(corner[key].attributes[attribute]) for key in keys]
        groups = [clusters[key[0]] for key in keys]
        effects.append(
            PreferenceEffect(
                attribute,
                uniform=clustered_mean(before, groups, bounds=(0.0, 1.0), confidence=confidence),
                corner=clustered_mean(after, groups, bounds=(0.0, 1.0), confidence=confidence),
                difference=clustered_difference(before, after, groups, confidence=confidence),
            )
        )
    return effects
