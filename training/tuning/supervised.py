"""Supervised fine-tuning of a model on replies; only reply tokens contribute to the loss."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prosocial.core.batches import EncodedReply
from prosocial.core.files import require_new
from prosocial.core.placement import Placement

from .settings import ON_CPU, Tuning
from .trainer import checkpoints, load_to_tune, require_trainer, save, train


def tune_on_replies(
    base: Path | str,
    sequences: Sequence[EncodedReply],
    *,
    out: Path | str,
    tuning: Tuning,
    seed: int,
    placement: Placement = ON_CPU,
    scratch: Path | str | None = None,
    made_with: str = "",
    on_step: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> float:
    """Fine-tune a checkpoint on replies into a new checkpoint and return the mean loss.

    The new checkpoint has the dtype of the placement. Weights in bfloat16 are stepped in float32.

    Args:
        base: folder of a checkpoint with its tokenizer.
        sequences: conversations with replies as token ids.
        out: folder of the new checkpoint.
        tuning: the settings.
        seed: seed of the training.
        placement: device and dtype of the model; processes of `accelerate launch` have a device each.
        scratch: folder for training checkpoints, from which an interrupted training resumes; None to keep none.
        made_with: description of `base` and `sequences`, such as a digest; checkpoints with another one are set aside.
        on_step: called after every step.
        on_note: called with a line on checkpoints of another training.

    Raises:
        InputError: `out` exists, the dtype is float16, or a single row does not fit into memory.
        DivergenceError: a loss or gradient is not finite; `scratch` keeps the last finite checkpoint.
        MissingExtraError: accelerate is not installed.
    """
    require_trainer()
    from .reply_tuner import ReplyTuner

    base, out = Path(base), Path(out)
    require_new(out)
    model = load_to_tune(base, placement, tuning)
    described = {"kind": "sft", "tuning": tuning.model_dump(mode="json"), "seed": seed, "made_with": made_with}
    with checkpoints(scratch, described | {"dtype": str(model.dtype)}, on_note) as folder:
        trainer = ReplyTuner(model, sequences, tuning=tuning, folder=folder, seed=seed)
        loss = train(trainer, folder, on_step)
        save(trainer, out, base=base)
    return loss
