"""Training a reward model on labelled pairs: one loss per attribute, drawn preferences, conflicts as a choice."""

from collections.abc import Callable, Sequence
from pathlib import Path

from prosocial.core.errors import DivergenceError

from .attributes import Attribute
from .encoded_pairs import EncodedPairs
from .model import RewardModel
from .settings import RewardTraining
from .training_run import TrainingRun
from .training_state import StepRecord


def train_reward(
    reward: RewardModel,
    pairs: EncodedPairs,
    *,
    attributes: Sequence[Attribute],
    training: RewardTraining,
    pad_id: int,
    seed: int,
    checkpoint: Path | str | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> list[StepRecord]:
    """Train the adapter in place and return what every step saw.

    Args:
        reward: the model.
        pairs: to train on.
        attributes: in the order of the preference vector.
        training: how.
        pad_id: fills up short rows.
        seed: of batches, preferences and projections.
        checkpoint: a file to write the state to, and to go on from where there is one.
        on_step: called after every step, those of the checkpoint included.

    Raises:
        DivergenceError: a loss or gradient is not finite; the checkpoint keeps the last state where all were.
        MissingExtraError: the conflict method needs a package that is not installed.
        InputError: the checkpoint is of another run.
    """
    run = TrainingRun(reward, pairs, attributes=attributes, training=training, pad_id=pad_id, seed=seed)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    if checkpoint is not None and checkpoint.is_file():
        run.resume(checkpoint)
    for _ in run.history:
        on_step()
    while (step := len(run.history)) < training.steps:
        losses, gramian = run.fill_gradients()
        if not run.is_finite(losses):
            raise DivergenceError(_divergence(step, losses.tolist(), checkpoint, training.checkpoint_every))
        if checkpoint is not None and step and step % training.checkpoint_every == 0:
            run.save(checkpoint)
        run.move(losses, gramian)
        on_step()
    return run.history


def _divergence(step: int, losses: list[float], checkpoint: Path | None, every: int) -> str:
    found = f"losses and gradients should be finite, found losses {losses} at step {step}"
    kept = (step - 1) // every * every
    where = "" if checkpoint is None or kept <= 0 else f"; the state after step {kept} is kept in {checkpoint}"
    return f"{found}: lower the learning rate or beta{where}"
