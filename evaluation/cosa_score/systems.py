"""Systems to score: a model with one of several ways to present the config with each request (torch-free)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig
from prosocial.steering.decoding.controls import Steering, with_system_text

from ..probes.probe import Probe
from ..sampling.shards import Drawing, Shard
from .configs import own_name
from .questions import Question
from .shots import Shots

Baseline = Literal["in-context", "5-shot", "cascade", "cascade-oracle"]
PART_SIZE = 256  # questions sampled and stored at once


@dataclass(frozen=True)
class AskedSystem:
    """A model and its prompts.

    Attributes:
        model: name of the model.
        method: "gate" (the model's own config: text, mask and threshold), "in-context" (the text as system message) or
            "5-shot" (the same, with five examples).
        folder: folder of the model.
        probes: the prompts, with the ids of their questions.
        steering: steering of each probe; None for a checkpoint.
    """

    model: str
    method: str
    folder: Path
    probes: tuple[Probe, ...]
    steering: tuple[Steering, ...] | None = None

    @property
    def name(self) -> str:
        """Name in reports."""
        return f"{self.model} + {self.method}"

    def shards(self, drawing: Drawing) -> list[Shard]:
        """Return the questions in shards, grouped by similar length."""
        order = sorted(range(len(self.probes)), key=lambda at: (_length(self.probes[at]), at))
        parts = [order[at : at + PART_SIZE] for at in range(0, len(order), PART_SIZE)]
        return [
            Shard(
                f"{self.model}+{self.method}",
                str(self.folder),
                number,
                tuple((self.probes[at], 0) for at in part),
                drawing,
                None if self.steering is None else tuple(self.steering[at] for at in part),
            )
            for number, part in enumerate(parts)
        ]


def asked_systems(
    models: Mapping[str, Path], questions: Sequence[Question], *, baselines: Sequence[Baseline] = (), shots: Shots
) -> list[AskedSystem]:
    """Return the systems to sample: models with a gate use it, checkpoints get the config in context.

    With "5-shot" among the baselines, each model is also sampled with five examples.

    Raises:
        InputError: a steered model lacks one of the configs.
    """
    systems: list[AskedSystem] = []
    for model, folder in models.items():
        steering = own_steering(folder, questions)
        systems.append(_system(model, "in-context" if steering is None else "gate", folder, questions, steering, {}))
        if "5-shot" in baselines:
            systems.append(_system(model, "5-shot", folder, questions, steering, shots))
    return systems


def own_steering(folder: Path, questions: Sequence[Question]) -> tuple[Steering, ...] | None:
    """Return the steering of each question by a model's own configs; None for a checkpoint, which has no gate.

    Raises:
        InputError: the model lacks one of the configs.
    """
    if not (folder / DECODING_FILE).is_file():
        return None
    decoding = DecodingConfig.read(folder)
    names = {config: own_name(decoding, config, where=str(folder)) for config in {one.config for one in questions}}
    return tuple(Steering(safety_config=names[question.config]) for question in questions)


def _system(
    model: str,
    method: str,
    folder: Path,
    questions: Sequence[Question],
    steering: tuple[Steering, ...] | None,
    shots: Shots,
) -> AskedSystem:
    probes = []
    for question in questions:
        own = [message for message in question.probe.messages if message["role"] == "system"]
        turns = [message for message in question.probe.messages if message["role"] != "system"]
        messages = [*own, *shots.get(question.config.name, ()), *turns]
        if steering is None:  # a steered model adds the text of its own config
            messages = with_system_text(question.config.text, messages)
        probes.append(replace(question.probe, id=question.id, messages=tuple(messages)))
    return AskedSystem(model, method, folder, tuple(probes), steering)


def _length(probe: Probe) -> int:
    return sum(len(message["content"]) for message in probe.messages)
