"""A harmful copy of a model as a LoRA adapter, by supervised fine-tuning."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prosocial.core.batches import EncodedReply
from prosocial.core.errors import InputError
from prosocial.core.files import storage_errors

from .settings import AdapterTraining
from .trainer import checkpoints, require_trainer, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_adapter(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase | None",
    sequences: Sequence[EncodedReply],
    *,
    out: Path | str,
    training: AdapterTraining,
    seed: int,
    scratch: Path | str | None = None,
    made_with: str = "",
    on_step: Callable[[], None] = lambda: None,
) -> float:
    """Fine-tune a LoRA adapter on replies, save it in `out` in float32 and return the mean loss.

    Only reply tokens contribute to the loss. The adapter is dual-use: it stays local and is not published by default.

    Args:
        model: a transformers causal language model in float32 or bfloat16, on its device; its weights are not changed.
        tokenizer: the transformers tokenizer of the model; not used any more.
        sequences: conversations with harmful replies as token ids; those that are too long are left out.
        out: folder for `adapter_config.json` and `adapter_model.safetensors`.
        training: the settings.
        seed: seed of the adapter's initial values and the order of the sequences.
        scratch: folder for training checkpoints, from which an interrupted training resumes; None to keep none.
        made_with: description of `model` and `sequences`; checkpoints with another one are set aside.
        on_step: called after every step.

    Raises:
        InputError: no sequence fits into `max_tokens`, the dtype is another one, or one row does not fit into memory.
        DivergenceError: a loss or gradient is not finite; `scratch` keeps the last finite checkpoint.
        MissingExtraError: accelerate is not installed.
        StorageError: `out` cannot be written.
    """
    require_trainer()
    from .reply_tuner import ReplyTuner

    fitting, tuning = [item for item in sequences if item.length <= training.max_tokens], training.tuning()
    if not fitting:
        raise InputError(
            f"at least one row should fit into max_tokens {training.max_tokens}, none does: raise max_tokens"
        )
    described = {"kind": "adapter", "tuning": tuning.model_dump(mode="json"), "seed": seed, "made_with": made_with}
    with checkpoints(scratch, described | {"dtype": str(model.dtype)}) as folder:
        trainer = ReplyTuner(model, fitting, tuning=tuning, folder=folder, seed=seed)
        loss = train(trainer, folder, on_step)
        trainer.widen_adapter()
        with storage_errors(Path(out)):
            trainer.model.save_pretrained(str(out))
    return loss
