"""Shards: some probes for one model, whose replies do not depend on where or when they are sampled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.reply import Reply

from ..probes.probe import Probe
from .systems import ON_CPU, Hardware, System, open_system

SHARD_SIZE = 32  # replies per shard, all sampled in one batch; independent of the number of workers


@dataclass(frozen=True)
class Drawing:
    """Sampling settings.

    Attributes:
        seed: seed of the sampling noise.
        temperature: sampling temperature; 0 for greedy decoding.
        max_new_tokens: maximum length of a reply.
        samples: number of replies per probe.
    """

    seed: int
    temperature: float
    max_new_tokens: int
    samples: int = 1


@dataclass(frozen=True)
class Shard:
    """Some probes to sample from one model.

    Attributes:
        system: name of the model.
        folder: folder of the model.
        number: index of the shard among those of this model.
        requests: pairs of probe and sample number.
        drawing: sampling settings.
        steering: steering of each probe; None for the model's defaults.
    """

    system: str
    folder: str
    number: int
    requests: tuple[tuple[Probe, int], ...]
    drawing: Drawing
    steering: tuple[Steering, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the shard's file."""
        return f"{self.system}-{self.number:05d}"


def plan_shards(folders: Mapping[str, Path], probes: Sequence[Probe], drawing: Drawing) -> list[Shard]:
    """Return the shards of all models, in order."""
    requests = [(probe, sample) for probe in probes for sample in range(drawing.samples)]
    parts = [tuple(requests[at : at + SHARD_SIZE]) for at in range(0, len(requests), SHARD_SIZE)]
    return [
        Shard(system, str(folder), number, part, drawing)
        for system, folder in folders.items()
        for number, part in enumerate(parts)
    ]


def answer_shard(shard: Shard, hardware: Hardware = ON_CPU) -> list[dict[str, Any]]:
    """Sample a shard and return one row per reply; the model stays open until another model is needed."""
    drawing = shard.drawing
    replies = _opened(shard.folder, hardware).answer(
        [probe for probe, _ in shard.requests],
        seed=drawing.seed,
        temperature=drawing.temperature,
        max_new_tokens=drawing.max_new_tokens,
        steering=shard.steering,
        batch_size=len(shard.requests),
        on_error="reply",
        keys=[probe.id if sample == 0 else f"{probe.id}#{sample}" for probe, sample in shard.requests],
    )
    return [
        {
            "system": shard.system,
            "probe": probe.id,
            "sample": sample,
            "reply": reply.text,
            "finish": reply.finish,
            "error": reply.error,
        }
        for (probe, sample), reply in zip(shard.requests, replies, strict=True)
    ]


def reply_of(row: Mapping[str, Any]) -> Reply:
    """Return the reply in a row."""
    return Reply(row["reply"], (), row["finish"], error=row["error"])


@lru_cache(maxsize=1)
def _opened(folder: str, hardware: Hardware) -> System:
    return open_system(Path(folder), hardware)
