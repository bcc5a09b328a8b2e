"""Direct preference optimisation (DPO) of a model on pairs of replies."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prosocial.core.files import require_new
from prosocial.core.placement import Placement

from .preference import EncodedPreference
from .settings import ON_CPU, PreferenceTuning
from .trainer import checkpoints, load_to_tune, require_trainer, save, train


def tune_on_preferences(
    base: Path | str,
    pairs: Sequence[EncodedPreference],
    *,
    out: Path | str,
    tuning: PreferenceTuning,
    seed: int,
    placement: Placement = ON_CPU,
    scratch: Path | str | None = None,
    made_with: str = "",
    on_step: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> float:
    """Tune a checkpoint to prefer the chosen replies, with itself as reference model, into a new checkpoint.

    The new checkpoint has the dtype of the placement. Weights in bfloat16 are stepped in float32.

    Args:
        base: folder of a checkpoint with its tokenizer.
        pairs: prompts with a chosen and a rejected reply.
        out: folder of the new checkpoint.
        tuning: the settings.
        seed: seed of the training.
        placement: device and dtype of the model; processes of `accelerate launch` have a device each.
        scratch: folder for training checkpoints, from which an interrupted training resumes; None to keep none.
        made_with: description of `base` and `pairs`, such as a digest; checkpoints with another one are set aside.
        on_step: called after every step.
        on_note: called with a line on checkpoints of another training.

    Returns:
        The mean loss.

    Raises:
        InputError: `out` exists, the dtype is float16, or a single pair does not fit into memory.
        DivergenceError: a loss or gradient is not finite; `scratch` keeps the last finite checkpoint.
        MissingExtraError: accelerate is not installed.
    """
    require_trainer()
    from .preference_tuner import PreferenceTuner

    base, out = Path(base), Path(out)
    require_new(out)
    model = load_to_tune(base, placement, tuning)
    described = {"kind": "dpo", "tuning": tuning.model_dump(mode="json"), "seed": seed, "made_with": made_with}
    with checkpoints(scratch, described | {"dtype": str(model.dtype)}, on_note) as folder:
        trainer = PreferenceTuner(model, pairs, tuning=tuning, folder=folder, seed=seed)
        if tuning.lora is None:
            trainer.measure_reference(folder)
        loss = train(trainer, folder, on_step)
        save(trainer, out, base=base)
    return loss
