"""Questions: requests, each under a safety config (torch-free)."""

from collections.abc import Sequence
from dataclasses import dataclass

from prosocial.core.errors import InputError

from ..probes.probe import Probe
from .configs import ScoredConfig
from .public_sets import own_config


@dataclass(frozen=True)
class Question:
    """A request under a safety config.

    Attributes:
        config: config that the reply is scored under.
        probe: the request, without the config's text.
    """

    config: ScoredConfig
    probe: Probe

    @property
    def id(self) -> str:
        """Id that is unique within a run; the sampling noise of a reply depends on it, for every system alike."""
        return f"{self.config.name}/{self.probe.id}"


def questions_of(probes: Sequence[Probe], configs: Sequence[ScoredConfig] = ()) -> list[Question]:
    """Return every probe under every config, or each under its own config (CoSApien, CoSAlign-Test).

    Raises:
        InputError: there is no probe or no config, only some probes have their own config, or configs are given for
            probes that have their own.
    """
    brought = [(probe, own_config(probe)) for probe in probes]
    n_brought = sum(pair is not None for _, pair in brought)
    if not n_brought and configs and probes:
        return [Question(config, probe) for config in configs for probe in probes]
    if n_brought != len(probes) or not probes:
        raise InputError(
            f"a score should have probes, and configs from a file, from a bundle or in each probe, found "
            f"{n_brought} of {len(probes)} probes with their own config and {len(configs)} given configs"
        )
    if configs:
        raise InputError(
            f"probes with their own configs should be given no others, found {len(configs)}: leave these out"
        )
    return [Question(*pair) for _, pair in brought if pair is not None]


def configs_of(questions: Sequence[Question]) -> list[ScoredConfig]:
    """Return the configs of the questions, in order."""
    return list(dict.fromkeys(question.config for question in questions))
