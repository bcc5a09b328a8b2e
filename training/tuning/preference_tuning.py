"""Direct preference optimisation of a whole model on pairs of replies, through TRL."""

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

    Raises:
        InputError: the prompts differ.
    """

    chosen: EncodedReply
    rejected: EncodedReply

    def __post_init__(self) -> None:
        if self.chosen.prompt_ids != self.rejected.prompt_ids:
            raise InputError("the two replies of a pair should answer one prompt, found two prompts")


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
    """Tune a checkpoint to prefer the chosen replies, itself the reference, into a new checkpoint `out`.

    Args and errors are those of `tune_on_replies`; the mean loss is returned.
    """
    trl = import_trl()
    base, out, scratch = Path(base), Path(out), None if scratch is None else Path(scratch)
    require_new(out)
    from transformers import AutoTokenizer

    from prosocial.editing.checkpoints import load_model

    told = {"kind": "dpo", "tuning": tuning.model_dump(mode="json"), "seed": seed, "made_with": made_with}
    with checkpoints(scratch, told) as folder, quiet_trl():
        trainer = trl.DPOTrainer(
            model=load_model(base),
            ref_model=None if tuning.lora else load_model(base),
            args=arguments(trl.DPOConfig, tuning, folder, n_rows=len(pairs), seed=seed, beta=tuning.beta),
            train_dataset=_stand_in(),
            processing_class=AutoTokenizer.from_pretrained(str(base)),
            peft_config=lora_config(tuning.lora) if tuning.lora else None,
        )
        trainer.train_dataset = preference_dataset(pairs)
        loss = train(trainer, folder, on_step)
        save(trainer, out, tokenizer_from=base)
    return loss


def preference_dataset(pairs: Sequence[EncodedPreference]) -> Any:
    """Return what TRL's collator reads: the ids of the prompt and of the two replies."""
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
    """Return a row of text for TRL to encode: it takes no ids, and its way of encoding would let text become roles."""
    from datasets import Dataset

    return Dataset.from_list([{"prompt": ".", "chosen": ".", "rejected": "."}])
