"""A harmful copy of a model as a LoRA adapter: supervised fine-tuning through TRL and peft."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.batches import EncodedReply
from prosocial.core.files import storage_errors
from prosocial.core.settings import Count, Positive, Settings

from .settings import LoraShape
from .supervised import reply_dataset
from .trainer import import_trl, lora_config, quiet_trl, step_callback


class AdapterTraining(Settings):
    """How to train.

    Attributes:
        rank: LoRA rank; alpha: LoRA scale, delta = alpha / rank * B A.
        targets: names of the linear layers to adapt, or "all-linear".
    """

    rank: Count = 8
    alpha: Count = 16
    targets: str | tuple[str, ...] = "all-linear"
    steps: Count = 60
    batch_size: Count = 32
    learning_rate: Positive = 2e-3
    max_tokens: Count = 1024


def train_adapter(
    model: Any,
    tokenizer: Any,
    sequences: Sequence[EncodedReply],
    *,
    out: Path | str,
    training: AdapterTraining,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> float:
    """Fine-tune a LoRA adapter on the replies (prompts carry no loss), save it in `out`, return the mean loss.

    The result is dual-use: it is kept local and never published by default.

    Args:
        model: a transformers causal language model; its own weights stay as they are.
        tokenizer: the transformers tokenizer of the model.
        sequences: conversations and harmful replies as token ids.
        out: folder for `adapter_config.json` and `adapter_model.safetensors`.
        training: how.
        seed: seeds the adapter's initial values and the order of the rows.
        on_step: called after every step.
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
