"""The torch side of a comparison: a steered model with margins, or the plain model of a checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from prosocial.core.chat import ChatTokenizer
from prosocial.steering.decoding.controls import Steering

from .engines import ParityEngine
from .stepping import SteppingEngine

NAME = "PyTorch, float32"


@dataclass(frozen=True)
class Reference:
    """The opened reference model.

    Attributes:
        engine: engine of the decoding loop.
        end_ids: ids of the tokens that end a reply.
        margins: computes the margins of decisions; None for a plain model.
    """

    engine: Any
    end_ids: tuple[int, ...]
    margins: Any

    @classmethod
    def open(cls, folder: Path, *, is_steered: bool) -> Self:
        """Open a steered folder, or a checkpoint folder for a plain bundle.

        Raises:
            ArtefactError: the folder is not a steered folder or a checkpoint.
        """
        from prosocial.steering.torch_engine import PlainEngine, SteeredEngine

        ends = tuple(ChatTokenizer(folder).end_ids)
        if not is_steered:
            from prosocial.editing.checkpoints import load_model

            return cls(PlainEngine(load_model(folder)), ends, None)
        from prosocial.steering.steered_model import SteeredModel

        from .steered_margins import SteeredMargins

        steered = SteeredModel.open(folder)
        return cls(SteeredEngine(steered), ends, SteeredMargins(steered))

    def under(self, steering: Steering | None) -> ParityEngine:
        """Return the model as an engine under one steering; None for its own defaults."""
        return SteppingEngine(self.engine, name=NAME, end_ids=self.end_ids, steering=steering, margins=self.margins)
