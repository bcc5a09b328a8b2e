"""A trainer for losses of replies: steps in the model's dtype, and batches that are halved where memory runs out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel, set_seed

from prosocial.core.batches import EncodedReply, pad_replies, release_cached_memory, token_budget
from prosocial.core.cores import is_out_of_memory
from prosocial.core.errors import InputError
from prosocial.editing.checkpoints import load_model

from .lengths import LengthGroups
from .reply_forward import add_reply_forward
from .resuming import ResumableTrainer
from .settings import Tuning
from .trainer import arguments, is_launched, lora_config, quiet
from .wide_steps import WideSteps

BATCH_FIELDS = ("input_ids", "attention_mask", "next_ids", "predicts_reply")
REMEDY = "choose --dtype bfloat16, a LoRA adapter, a lower max_tokens, or another device"


class Tuner(ResumableTrainer):
    """Trains a model on rows by their index; a kind of tuning says what the loss of some rows is.

    One update takes `batch_size * accumulation` rows. Its gradient is computed for as many rows at a time as should fit
    into the free memory, where memory runs out for half as many, and in the end with activations computed again in the
    backward pass: the update stays the same.

    Args:
        model: the model, in float32 or bfloat16, on its device.
        lengths: tokens of each row.
        tuning: the settings.
        folder: folder for training checkpoints.
        seed: seed of the adapter's initial values and the order of the rows.

    Raises:
        InputError: the model's dtype is another one, or see `Backbone`.
    """

    def __init__(
        self, model: PreTrainedModel, lengths: Sequence[int], *, tuning: Tuning, folder: Path, seed: int
    ) -> None:
        if model.dtype not in (torch.float32, torch.bfloat16):
            raise InputError(
                f"a model should be tuned in float32 or bfloat16, the value is {model.dtype}: choose --dtype bfloat16"
            )
        self.lengths, self.tuning, self.computes_again = lengths, tuning, False
        self.at_once = tuning.batch_size if is_launched() else min(tuning.batch_size, _rows_that_fit(model, lengths))
        args = arguments(tuning, folder, n_rows=len(lengths), seed=seed, device=model.device)
        set_seed(seed)
        add_reply_forward(model)
        with quiet():
            trained = _with_adapter(model, tuning)
        super().__init__(model=trained, args=args, train_dataset=range(len(lengths)), data_collator=_indices)

    def n_terms(self, rows: Sequence[int]) -> int:
        """Return the number of terms that the loss of some rows is the mean of."""
        raise NotImplementedError

    def summed_loss(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
        """Return the sum of the terms of some rows."""
        raise NotImplementedError

    def log_probabilities(self, model: nn.Module, replies: Sequence[EncodedReply]) -> Tensor:
        """Return the summed log-probability of each reply [B]."""
        batch = pad_replies(replies, range(len(replies)), pad_id=0)
        given = {name: getattr(batch, name).to(self.args.device) for name in BATCH_FIELDS}
        result: Tensor = model(**given)
        return result

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Compute the gradient of one update and return its loss."""
        model.train()
        rows = inputs["rows"].tolist()
        n_terms = self.accelerator.gather(torch.tensor(self.n_terms(rows), device=self.args.device)).sum()
        scale = self.accelerator.num_processes / n_terms  # the processes' gradients are averaged
        while True:
            try:
                return self._gradient(model, rows, scale)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._take_less_memory(rows, error)
            model.zero_grad()
            release_cached_memory()

    def _gradient(self, model: nn.Module, rows: list[int], scale: Tensor) -> Tensor:
        total = torch.zeros((), device=self.args.device)
        if len(rows) > self.at_once:
            rows = sorted(rows, key=self.lengths.__getitem__)
        for start in range(0, len(rows), self.at_once):
            part = rows[start : start + self.at_once]
            with self.compute_loss_context_manager():
                loss = self.summed_loss(model, part) * scale
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _take_less_memory(self, rows: Sequence[int], error: Exception) -> None:
        """Halve the rows at once, then keep fewer activations.

        Raises:
            InputError: neither is left, or processes that train together would no longer be in step.
        """
        alone = self.accelerator.num_processes == 1
        if alone and self.at_once > 1:
            self.at_once = math.ceil(min(self.at_once, len(rows)) / 2)
        elif alone and not self.computes_again:
            self.computes_again = True
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            longest = max(self.lengths[row] for row in rows)
            raise InputError(
                f"{self.at_once} rows of up to {longest} tokens should fit into memory, they do not: {REMEDY}"
            ) from error

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimiser; weights in bfloat16 are stepped in float32."""
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        if self.optimizer is None and {weight.dtype for weight in trained} == {torch.bfloat16}:
            self.optimizer = WideSteps(trained, *self.get_optimizer_cls_and_kwargs(self.args, self.model))
        return super().create_optimizer(model)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the operations are not counted."""
        return 0

    def widen_adapter(self) -> None:
        """Turn the weights of a trained adapter into float32, with the bits that the optimiser has kept."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate wraps it
        for weight in self.model.parameters():
            if weight.requires_grad and isinstance(optimizer, WideSteps):
                weight.data = optimizer.wide(weight)

    def trained_model(self, base: Path) -> PreTrainedModel | None:
        """Return the trained model with any adapter merged, rounded once; on other processes than the first, None.

        Args:
            base: folder of the model before the training; FSDP's parts of the trained one are put together in it.
        """
        state = self.accelerator.get_state_dict(self.model_wrapped) if self.is_fsdp_enabled else None
        if not self.is_world_process_zero():
            return None
        if state is None:
            model = self.accelerator.unwrap_model(self.model)
        else:
            model = _with_adapter(load_model(base), self.tuning)
            model.load_state_dict(state, strict=False)  # tied weights are missing
        if isinstance(model, PeftModel):
            self.widen_adapter()
            model = _merged(model)
        vars(model).pop("forward", None)
        result: PreTrainedModel = model
        return result

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.tuning.by_length:
            return super()._get_train_sampler(train_dataset)
        together = self.args.train_batch_size * self.args.world_size
        return LengthGroups(self.lengths, batch_size=together, seed=self.args.seed)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        dtypes = {name: weight.dtype for name, weight in self.model.named_parameters()}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for name, weight in self.model.named_parameters():  # peft loads adapters in float32
            weight.data = weight.data.to(dtypes[name])


def _indices(rows: list[int]) -> dict[str, Tensor]:
    return {"rows": torch.tensor(rows)}


def _rows_that_fit(model: PreTrainedModel, lengths: Sequence[int]) -> int:
    """Return how many rows of the longest length a quarter of the free memory should hold, at least 1.

    A layer keeps about 16 vectors of the hidden size and 5 of the feed-forward size for the backward pass.
    """
    text = model.config.get_text_config()
    wide = 16 * text.hidden_size + 5 * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
    size = text.num_hidden_layers * wide * model.dtype.itemsize
    return max(1, token_budget(model.device, bytes_per_token=size) // max(lengths))


def _with_adapter(model: PreTrainedModel, tuning: Tuning) -> Any:
    if tuning.lora is None:
        return model
    return get_peft_model(model, lora_config(tuning.lora), autocast_adapter_dtype=False)


def _merged(model: Any) -> PreTrainedModel:
    """Return the model with its adapter added to its weights, in float32 and with one rounding."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for module in layers:
        weight = module.get_base_layer().weight
        weight.data = (weight.float() + module.get_delta_weight(model.active_adapter).float()).to(weight.dtype)
    result: PreTrainedModel = model.unload()
    return result
