"""A piece of the work: some probes put to one model. Its replies do not depend on where or when it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.reply import Reply

from ..probes.probe import Probe
from .systems import System, open_system

SHARD_SIZE = 32  # probes, and the most replies drawn at once: the same however many workers there are


@dataclass(frozen=True)
class Drawing:
    """How replies are drawn.

    Attributes:
        seed: of the noise. temperature: 0 takes the most likely reply.
        max_new_tokens: the longest reply. samples: replies per probe.
    """

    seed: int
    temperature: float
    max_new_tokens: int
    samples: int = 1


@dataclass(frozen=True)
class Shard:
    """Some probes put to one model.

    Attributes:
        system: name of the model. folder: where it lies. number: of the shard among those of this model.
        asked: each probe with the number of the sample.
        drawing: how replies are drawn. steering: of each probe; None: the defaults of the model.
    """

    system: str
    folder: str
    number: int
    asked: tuple[tuple[Probe, int], ...]
    drawing: Drawing
    steering: tuple[Steering, ...] | None = None

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.system}-{self.number:05d}"


def plan_shards(folders: Mapping[str, Path], probes: Sequence[Probe], drawing: Drawing) -> list[Shard]:
    """Return the shards of all models, in order."""
    asked = [(probe, sample) for probe in probes for sample in range(drawing.samples)]
    parts = [tuple(asked[at : at + SHARD_SIZE]) for at in range(0, len(asked), SHARD_SIZE)]
    return [
        Shard(system, str(folder), number, part, drawing)
        for system, folder in folders.items()
        for number, part in enumerate(parts)
    ]


def answer_shard(shard: Shard) -> list[dict[str, Any]]:
    """Return one row per reply; the model stays open in this process until another one is asked."""
    drawing = shard.drawing
    replies = _opened(shard.folder).answer(
        [probe for probe, _ in shard.asked],
        seed=drawing.seed,
        temperature=drawing.temperature,
        max_new_tokens=drawing.max_new_tokens,
        steering=shard.steering,
        batch_size=len(shard.asked),
        on_error="reply",
        keys=[probe.id if sample == 0 else f"{probe.id}#{sample}" for probe, sample in shard.asked],
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
        for (probe, sample), reply in zip(shard.asked, replies, strict=True)
    ]


def reply_of(row: Mapping[str, Any]) -> Reply:
    """Return the reply of a row."""
    return Reply(row["reply"], (), row["finish"], error=row["error"])


@lru_cache(maxsize=1)
def _opened(folder: str) -> System:
    return open_system(Path(folder))
