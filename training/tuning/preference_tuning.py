"""Direct preference optimisation (DPO) of a model on pairs of replies, with TRL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.batches import EncodedReply
from prosocial.core.errors import InputError
from prosocial.core.files import require_new

from .settings import PreferenceTuning
from .trainer import arguments, checkpoints, import_trl, lora_config, quiet_trl, save, train


@dataclass(frozen=True)
class EncodedPreference:
    """Two replies to one prompt as token ids.

    Attributes:
        chosen: the prompt with the better reply.
        rejected: the prompt with the worse reply.

    Raises:
        InputError: the prompts differ.
    """

    chosen: EncodedReply
    rejected: EncodedReply

    def __post_init__(self) -> None:
        if self.chosen.prompt_ids != self.rejected.prompt_ids:
            raise InputError("the two replies of a pair should have the same prompt, found two different ones")


def tune_on_preferences(
    base: Path | str,
    pairs: Sequence[EncodedPreference],
    *,
    out: Path | str,
    tuning: PreferenceTuning,
    seed: int,
    scratch: Path | str | None = None,
    made_with: str = "",
    on_step: Callable[[], None] = lambda: None,
) -> float:
    """Tune a checkpoint to prefer the chosen replies, with itself as reference model, into a new checkpoint.

    Args:
        base: folder of a checkpoint with its tokenizer.
        pairs: prompts with a chosen and a rejected reply.
        out: folder of the new checkpoint.
        tuning: the settings.
        seed: seed of the training.
        scratch: folder for training checkpoints, from which an interrupted training resumes; None to keep none.
        made_with: description of `base` and `pairs`, such as a digest; checkpoints with another one are refused.
        on_step: called after every step.

    Returns:
        The mean loss.

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

    described = {"kind": "dpo", "tuning": tuning.model_dump(mode="json"), "seed": seed, "made_with": made_with}
    with checkpoints(scratch, described) as folder, quiet_trl():
        trainer = resumable(trl.DPOTrainer)(
            model=load_model(base),
            ref_model=None if tuning.lora else load_model(base),
            args=arguments(trl.DPOConfig, tuning, folder, n_rows=len(pairs), seed=seed, beta=tuning.beta),
            train_dataset=_stand_in(),
            processing_class=load_tokenizer(base),
            peft_config=lora_config(tuning.lora) if tuning.lora else None,
        )
        trainer.train_dataset = preference_dataset(pairs)
        loss = train(trainer, folder, on_step)
        save(trainer, out, tokenizer_from=base)
    return loss


def preference_dataset(pairs: Sequence[EncodedPreference]) -> Any:
    """Return the data set that TRL's DPO collator expects: token ids of the prompt and of both replies."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "prompt_ids": list(pair.chosen.prompt_ids),
                "chosen_ids": list(pair.chosen.reply_ids),
                "rejected_ids": list(pair.rejected.reply_ids),
            }
            for pair in pairs
        ]
    )


def _stand_in() -> Any:
    """Return a placeholder data set for the trainer's constructor.

    The constructor accepts text only and would encode special tokens inside it; the real data set of token ids replaces
    the placeholder afterwards.
    """
    from datasets import Dataset

    return Dataset.from_list([{"prompt": ".", "chosen": ".", "rejected": "."}])
