"""The loss of DPO (arXiv 2305.18290), with the model before the training as reference and no second model."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from prosocial.core.batches import halving

from .preference import EncodedPreference
from .resuming import read_state, write_state
from .tuner import REMEDY, Tuner

REFERENCE = "reference.safetensors"


class PreferenceTuner(Tuner):
    """Trains a model to prefer the chosen replies.

    The loss of a pair depends on two margins, log pi(chosen) - log pi(rejected) of the model and of its reference. The
    reference's is computed with the adapter off when a pair is met first; without an adapter, for all pairs before the
    training, and kept in a file.

    Args:
        model: the model.
        pairs: prompts with two replies each.
        settings: see `Tuner`.
    """

    def __init__(self, model: PreTrainedModel, pairs: Sequence[EncodedPreference], **settings: Any) -> None:
        self.pairs, self.reference = pairs, dict[int, float]()
        self.beta: float = settings["tuning"].beta
        super().__init__(model, [2 * pair.length for pair in pairs], **settings)
        for module in self.model.modules():  # random zeros would make the model differ from its reference
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def measure_reference(self, folder: Path) -> None:
        """Compute the reference's margins of all pairs, or read them; needed where all weights are trained."""
        path = folder / REFERENCE
        with self.args.main_process_first(local=False):
            if path.is_file():
                self.reference = read_state(path)
                return
            order = sorted(range(len(self.pairs)), key=self.lengths.__getitem__)
            for start in range(0, len(order), self.at_once):
                for _ in halving(self._refer_to(self.model), order[start : start + self.at_once], remedy=REMEDY):
                    pass
            write_state(path, self.reference)

    def n_terms(self, rows: Sequence[int]) -> int:
        """Return the number of pairs."""
        return len(rows)

    def summed_loss(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
        """Return DPO's loss, summed over some pairs."""
        missing = [row for row in rows if row not in self.reference]
        if missing:
            self._refer_to(model)(missing)
        margins = self._margins(model, rows)
        before = margins.new_tensor([self.reference[row] for row in rows])
        return -logsigmoid(self.beta * (margins - before)).sum()

    def _margins(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
        """Return log pi(chosen) - log pi(rejected) of some pairs [B]."""
        pairs = [self.pairs[row] for row in rows]
        replies = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        chosen, rejected = self.log_probabilities(model, replies).chunk(2)
        return chosen - rejected

    def _refer_to(self, model: nn.Module) -> Callable[[list[int]], None]:
        """Return a function that computes the reference's margins of some pairs."""

        def run(rows: list[int]) -> None:
            peft = self.accelerator.unwrap_model(model)
            with torch.no_grad(), peft.disable_adapter() if isinstance(peft, PeftModel) else nullcontext():
                self.reference |= dict(zip(rows, self._margins(model, rows).tolist(), strict=True))

        return run
