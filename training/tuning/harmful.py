"""A harmful copy of a model as a LoRA adapter, by supervised fine-tuning with TRL and peft."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosocial.core.batches import EncodedReply
from prosocial.core.files import storage_errors

from .settings import AdapterTraining, LoraShape
from .supervised import reply_dataset
from .trainer import import_trl, lora_config, quiet_trl, step_callback

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_adapter(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    sequences: Sequence[EncodedReply],
    *,
    out: Path | str,
    training: AdapterTraining,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> float:
    """Fine-tune a LoRA adapter on replies, save it in `out` and return the mean loss.

    Only reply tokens contribute to the loss. The adapter is dual-use: it stays local and is not published by default.

    Args:
        model: a transformers causal language model; its weights are not changed.
        tokenizer: the transformers tokenizer of the model.
        sequences: conversations with harmful replies as token ids.
        out: folder for `adapter_config.json` and `adapter_model.safetensors`.
        training: the settings.
        seed: seed of the adapter's initial values and the order of the sequences.
        on_step: called after every step.

    Raises:
        MissingExtraError: TRL is not installed.
        StorageError: `out` cannot be written.
    """
    trl = import_trl()
    from transformers import PrinterCallback

    shape = LoraShape(rank=training.rank, alpha=training.alpha, targets=training.targets)
    with tempfile.TemporaryDirectory() as scratch, quiet_trl():
        trainer = trl.SFTTrainer(
            model=model,
            args=_arguments(trl, training, scratch, seed),
            train_dataset=reply_dataset(sequences),
            processing_class=tokenizer,
            peft_config=lora_config(shape),
            callbacks=[step_callback(on_step)],
        )
        trainer.remove_callback(PrinterCallback)
        result = trainer.train()
        with storage_errors(Path(out)):
            trainer.model.save_pretrained(str(out))
    return float(result.training_loss)


def _arguments(trl: Any, training: AdapterTraining, scratch: str, seed: int) -> Any:
    return trl.SFTConfig(
        output_dir=scratch,
        max_steps=training.steps,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, training.steps // 10),
        max_length=training.max_tokens,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        report_to=[],
        logging_strategy="no",
        disable_tqdm=True,
        seed=seed,
        bf16=False,
        dataloader_pin_memory=False,
    )
