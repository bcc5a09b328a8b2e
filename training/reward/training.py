"""Training of a reward model on labelled pairs: one loss per attribute, with sampled preferences."""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prosocial.core.errors import DivergenceError, InputError

from .attributes import Attribute
from .encoded_pairs import EncodedPairs
from .model import RewardModel
from .processes import everybody_read, is_first
from .settings import RewardTraining
from .training_run import TrainingRun
from .training_state import StepRecord

MOST_SECONDS_UNSAVED = 60.0


def train_reward(
    reward: RewardModel,
    pairs: EncodedPairs,
    *,
    attributes: Sequence[Attribute],
    training: RewardTraining,
    pad_id: int,
    seed: int,
    made_with: str = "",
    checkpoint: Path | str | None = None,
    on_step: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[StepRecord]:
    """Train a reward model's adapter in place and return one record per step.

    Args:
        reward: the reward model.
        pairs: training pairs.
        attributes: the attributes, in the order of the preference vector.
        training: the settings.
        pad_id: token id for padding.
        seed: seed of the batches, the preferences and the order of gradient projections.
        made_with: description of the model, such as a fingerprint; checkpoints with another one are set aside.
        checkpoint: file to save the state in, also after the last step; if it exists, training resumes from it. One of
            another training, or a damaged one, is renamed.
        on_step: called after every step, including those before a resumed checkpoint.
        on_note: called with a line of text where a checkpoint was renamed.

    Raises:
        DivergenceError: a loss or gradient is not finite; the checkpoint keeps the last finite state.
        MissingExtraError: the conflict method needs a package that is not installed.
        InputError: a pair does not fit into memory.
    """
    run = TrainingRun(
        reward, pairs, attributes=attributes, training=training, pad_id=pad_id, seed=seed, made_with=made_with
    )
    checkpoint = None if checkpoint is None else Path(checkpoint)
    if checkpoint is not None and checkpoint.is_file():
        _resume(run, checkpoint, on_note)
    saved_at = time.monotonic()
    for _ in run.history:
        on_step()
    while (step := len(run.history)) < training.steps:
        losses, gramian = run.fill_gradients()
        if not run.is_finite(losses):
            raise DivergenceError(_divergence(step, losses.tolist(), checkpoint, run.saved))
        is_due = step % training.checkpoint_every == 0 or time.monotonic() - saved_at > MOST_SECONDS_UNSAVED
        if checkpoint is not None and step > run.saved and is_due:
            run.save(checkpoint)
            saved_at = time.monotonic()
        run.move(losses, gramian)
        on_step()
    if checkpoint is not None and run.saved < training.steps:
        run.save(checkpoint)
    return run.history


def _resume(run: TrainingRun, checkpoint: Path, on_note: Callable[[str], None]) -> None:
    """Resume from a checkpoint; rename one that cannot be resumed from."""
    try:
        run.resume(checkpoint)
    except InputError as error:
        everybody_read()
        free = (checkpoint.with_name(f"{checkpoint.name}.set-aside-{number}") for number in itertools.count(1))
        aside = next(path for path in free if not path.exists())
        if is_first():
            checkpoint.rename(aside)
        on_note(f"{error}: it was set aside as {aside.name}, training starts anew")


def _divergence(step: int, losses: list[float], checkpoint: Path | None, kept: int) -> str:
    problem = f"losses and gradients should be finite, found losses {losses} at step {step}"
    where = "" if checkpoint is None or kept <= 0 else f"; {checkpoint} keeps the state after step {kept}"
    return f"{problem}: lower the learning rate or beta{where}"
