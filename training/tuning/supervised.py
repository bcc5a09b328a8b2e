"""Supervised fine-tuning of a model on replies, with TRL; only reply tokens contribute to the loss."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.batches import EncodedReply
from prosocial.core.files import require_new

from .settings import Tuning
from .trainer import arguments, checkpoints, import_trl, lora_config, quiet_trl, save, train

NO_LOSS = -100


def tune_on_replies(
    base: Path | str,
    sequences: Sequence[EncodedReply],
    *,
    out: Path | str,
    tuning: Tuning,
    seed: int,
    scratch: Path | str | None = None,
    made_with: str = "",
    on_step: Callable[[], None] = lambda: None,
) -> float:
    """Fine-tune a checkpoint on replies into a new checkpoint and return the mean loss.

    Args:
        base: folder of a checkpoint with its tokenizer.
        sequences: conversations with replies as token ids.
        out: folder of the new checkpoint.
        tuning: the settings.
        seed: seed of the training.
        scratch: folder for training checkpoints, from which an interrupted training resumes; None to keep none.
        made_with: description of `base` and `sequences`, such as a digest; checkpoints with another one are refused.
        on_step: called after every step.

    Raises:
        InputError: `scratch` holds checkpoints of another training, or `out` exists.
        DivergenceError: a loss or gradient is not finite; `scratch` keeps the last finite checkpoint.
        MissingExtraError: TRL is not installed.
    """
    trl = import_trl()
    base, out, scratch = Path(base), Path(out), None if scratch is None else Path(scratch)
    require_new(out)
    from prosocial.editing.checkpoints import load_model
    from prosocial.editing.checkpoints.tokenizer import load_tokenizer

    from .resuming import resumable

    described = {"kind": "sft", "tuning": tuning.model_dump(mode="json"), "seed": seed, "made_with": made_with}
    with checkpoints(scratch, described) as folder, quiet_trl():
        trainer = resumable(trl.SFTTrainer)(
            model=load_model(base),
            args=arguments(
                trl.SFTConfig,
                tuning,
                folder,
                n_rows=len(sequences),
                seed=seed,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            train_dataset=reply_dataset(sequences),
            processing_class=load_tokenizer(base),
            peft_config=lora_config(tuning.lora) if tuning.lora else None,
        )
        loss = train(trainer, folder, on_step)
        save(trainer, out, tokenizer_from=base)
    return loss


def reply_dataset(sequences: Sequence[EncodedReply]) -> Any:
    """Return the data set that TRL expects: token ids, and labels that mask the prompt out of the loss."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "input_ids": list(item.prompt_ids + item.reply_ids),
                "labels": [NO_LOSS] * len(item.prompt_ids) + list(item.reply_ids),
            }
            for item in sequences
        ]
    )
