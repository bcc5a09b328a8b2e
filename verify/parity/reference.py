"""The torch side of a comparison: a steered model with margins, or the plain model of a checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from prosocial.core.chat import ChatTokenizer
from prosocial.core.placement import REFERENCE, Placement
from prosocial.steering.decoding.controls import Steering

from .engines import ParityEngine
from .stepping import SteppingEngine


@dataclass(frozen=True)
class Reference:
    """The opened reference model.

    Attributes:
        engine: engine of the decoding loop.
        end_ids: ids of the tokens that end a reply.
        margins: computes the margins of decisions; None for a plain model.
        name: dtype and device, for the report.
    """

    engine: Any
    end_ids: tuple[int, ...]
    margins: Any
    name: str

    @classmethod
    def open(cls, folder: Path, *, is_steered: bool, placement: Placement = REFERENCE) -> Self:
        """Open a steered folder, or a checkpoint folder for a plain bundle.

        Args:
            folder: the folder.
            is_steered: whether it is a steered folder.
            placement: where the reference lies; the default thresholds of parity are meant for float32.

        Raises:
            ArtefactError: the folder is not a steered folder or a checkpoint.
        """
        from prosocial.steering.torch_engine import PlainEngine, SteeredEngine

        ends, name = tuple(ChatTokenizer(folder).end_ids), reference_name(placement)
        if not is_steered:
            from prosocial.editing.checkpoints import load_model

            model = load_model(folder, dtype=placement.torch_dtype, device=placement.device)
            return cls(PlainEngine(model), ends, None, name)
        from prosocial.steering.steered_model import SteeredModel

        from .steered_margins import SteeredMargins

        steered = SteeredModel.open(folder, placement)
        return cls(SteeredEngine(steered), ends, SteeredMargins(steered), name)

    def under(self, steering: Steering | None) -> ParityEngine:
        """Return the model as an engine under one steering; None for its own defaults."""
        return SteppingEngine(
            self.engine, name=self.name, end_ids=self.end_ids, steering=steering, margins=self.margins
        )


def reference_name(placement: Placement) -> str:
    """Return the name of a reference in reports.

    Examples:
        >>> reference_name(Placement("cuda:0", "float32"))
        'PyTorch, float32, cuda:0'
    """
    return f"PyTorch, {placement.dtype}" + ("" if placement.device == "cpu" else f", {placement.device}")
