"""What is asked: requests, each under a safety config (torch-free)."""

from collections.abc import Sequence
from dataclasses import dataclass

from prosocial.core.errors import InputError

from ..probes.probe import Probe
from .configs import ScoredConfig
from .public_sets import own_config


@dataclass(frozen=True)
class Question:
    """A request under a config.

    Attributes:
        config: what the reply is held against. probe: the request, without the config's text.
    """

    config: ScoredConfig
    probe: Probe

    @property
    def id(self) -> str:
        """Unique within a scoring; the noise of a reply hangs on it, whoever replies."""
        return f"{self.config.name}/{self.probe.id}"


def questions_of(probes: Sequence[Probe], configs: Sequence[ScoredConfig] = ()) -> list[Question]:
    """Return every probe under every config, or each under the config that it brings (CoSApien, CoSAlign-Test).

    Raises:
        InputError: there is no probe; none brings a config and none is given; some bring one and some do not; or some
            bring one and others are given.
    """
    brought = [(probe, own_config(probe)) for probe in probes]
    n_brought = sum(found is not None for _, found in brought)
    if not n_brought and configs and probes:
        return [Question(config, probe) for config in configs for probe in probes]
    if n_brought != len(probes) or not probes:
        raise InputError(
            f"a score needs probes, and configs from a file, from a bundle or with each probe: {n_brought} of "
            f"{len(probes)} probes bring one, {len(configs)} are given"
        )
    if configs:
        raise InputError(f"these probes bring their own configs: leave out the {len(configs)} that are given")
    return [Question(*found) for _, found in brought if found is not None]


def configs_of(questions: Sequence[Question]) -> list[ScoredConfig]:
    """Return the configs that are asked about, in order."""
    return list(dict.fromkeys(question.config for question in questions))
