"""Tied embeddings: one matrix that is both the input embedding and the output head."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

INPUT_SUFFIXES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
OUTPUT_SUFFIXES = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class Tied:
    """Whether a checkpoint's input embedding and output head are tied, and which of them it stores.

    Attributes:
        tied: whether the model uses one matrix for both.
        stored: names of the stored tensors among the two; a tied checkpoint usually stores one, some store two copies.
        absent: name suffixes of the one that a tied checkpoint does not store.
    """

    tied: bool
    stored: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def copies(self) -> tuple[str, ...]:
        """Names of the two copies that must stay equal; empty if nothing is tied or only one copy is stored."""
        return self.stored if self.tied and len(self.stored) == 2 else ()


def find_tied(config: Mapping[str, Any], names: Iterable[str]) -> Tied:
    """Return from config and tensor names whether the embeddings are tied.

    If the config does not say, they count as tied if an input embedding but no output head is stored.

    >>> find_tied({"tie_word_embeddings": True}, ["model.embed_tokens.weight"]).tied
    True
    """
    names = sorted(names)
    inputs = [name for name in names if name.endswith(INPUT_SUFFIXES)]
    outputs = [name for name in names if name.endswith(OUTPUT_SUFFIXES)]
    written = _written(config)
    tied = written if written is not None else bool(inputs) and not outputs
    absent = (() if inputs else INPUT_SUFFIXES) + (() if outputs else OUTPUT_SUFFIXES)
    return Tied(tied, tuple(inputs[:1] + outputs[:1]), absent if tied else ())


def _written(config: Mapping[str, Any]) -> bool | None:
    for owner in (config, config.get("text_config")):
        if isinstance(owner, Mapping) and isinstance(owner.get("tie_word_embeddings"), bool):
            return bool(owner["tie_word_embeddings"])
    return None
