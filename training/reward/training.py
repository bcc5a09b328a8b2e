"""Training of a reward model on labelled pairs: one loss per attribute, with sampled preferences."""

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
    """Train a reward model's adapter in place and return one record per step.

    Args:
        reward: the reward model.
        pairs: training pairs.
        attributes: the attributes, in the order of the preference vector.
        training: the settings.
        pad_id: token id for padding.
        seed: seed of the batches, the preferences and the order of gradient projections.
        checkpoint: file to save the state in; if it exists, training resumes from it.
        on_step: called after every step, including those before a resumed checkpoint.

    Raises:
        DivergenceError: a loss or gradient is not finite; the checkpoint keeps the last finite state.
        MissingExtraError: the conflict method needs a package that is not installed.
        InputError: the checkpoint belongs to another run.
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
    problem = f"losses and gradients should be finite, found losses {losses} at step {step}"
    kept = (step - 1) // every * every
    where = "" if checkpoint is None or kept <= 0 else f"; {checkpoint} keeps the state after step {kept}"
    return f"{problem}: lower the learning rate or beta{where}"
