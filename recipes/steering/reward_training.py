"""A reward model from a file of labelled pairs: read, train, score on the pairs that were held out, write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosocial.core.files import write_json

from .schema import RewardSettings

if TYPE_CHECKING:
    from prosocial.training.reward.attributes import Attribute
    from prosocial.training.reward.encoded_pairs import EncodedPairs
    from prosocial.training.reward.model import RewardModel
    from prosocial.training.reward.settings import RewardTraining
    from prosocial.training.reward.training_state import StepRecord


def train_on_pairs(
    base: Path,
    pairs: Path,
    *,
    attributes: "Sequence[Attribute]",
    settings: RewardSettings,
    out: Path,
    checkpoint: Path,
    dtype: str = "float32",
    seed: int = 0,
    on_start: Callable[[int], None] = lambda n_steps: None,
    on_step: Callable[[], None] = lambda: None,
) -> str:
    """Train a reward model of a checkpoint into the folder `out`, and return one line that says what came out.

    Of several processes (`processes.join`) each takes its share of every batch; the first writes.

    Args:
        base: the checkpoint that it scores with and belongs to.
        pairs: labelled pairs (JSONL); the last tenth is held out.
        checkpoint: the file from which the same training goes on.
        on_start: told the number of steps. on_step: called after each.

    Raises:
        InputError: an attribute without a label, or a checkpoint of another training.
        DivergenceError: a loss or gradient is not finite; the checkpoint keeps the last state where all were.
    """
    from prosocial.core.chat import ChatTokenizer
    from prosocial.training.reward.accuracy import pair_accuracy
    from prosocial.training.reward.processes import is_first
    from prosocial.training.reward.settings import RewardTraining
    from prosocial.training.reward.training import train_reward

    names, pad_id = [attribute.name for attribute in attributes], ChatTokenizer(base).pad_id
    training = RewardTraining(**{key: getattr(settings, key) for key in RewardTraining.model_fields})
    train, held_out = _encoded_pairs(base, pairs, names, max_tokens=training.max_tokens)
    reward = _new_reward_model(base, names, settings, dtype=dtype, seed=seed)
    on_start(training.steps)
    history = train_reward(
        reward,
        train,
        attributes=attributes,
        training=training,
        pad_id=pad_id,
        seed=seed,
        checkpoint=checkpoint,
        on_step=on_step,
    )
    accuracy = pair_accuracy(reward, held_out, attributes=names, pad_id=pad_id)
    if is_first():
        _write(out, reward, train, history, accuracy=accuracy, base=base, training=training)
    corners = [value["corner"] for value in accuracy.values()]
    return f"held-out pairs ranked right at the corners: {min(corners):.0%} to {max(corners):.0%}"


def _new_reward_model(
    base: Path, names: Sequence[str], settings: RewardSettings, *, dtype: str, seed: int
) -> "RewardModel":
    """Return the checkpoint with a new adapter, which depends on the seed alone."""
    import torch

    from prosocial.editing.checkpoints import load_model
    from prosocial.training.reward.model import RewardConfig, RewardModel
    from prosocial.training.reward.processes import own_device

    model: Any = load_model(base, dtype=getattr(torch, dtype))
    model.to(own_device())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RewardModel(model, RewardConfig(attributes=tuple(names), **settings.adapter.model_dump()))


def _write(
    out: Path,
    reward: "RewardModel",
    train: "EncodedPairs",
    history: "Sequence[StepRecord]",
    *,
    accuracy: Mapping[str, Any],
    base: Path,
    training: "RewardTraining",
) -> None:
    """Write the adapter, and `training.json`: every step, the accuracy, and how far the labels agree."""
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.training.reward.encoded_pairs import label_agreement

    reward.save(out, checkpoint_fingerprint=fingerprint(base), training=training.model_dump(mode="json"))
    agreement = {"attributes": list(reward.config.attributes), "share": label_agreement(train.signs)}
    steps = [asdict(record) for record in history]
    write_json(out / "training.json", {"steps": steps, "pair_accuracy": accuracy, "label_agreement": agreement})


def _encoded_pairs(
    base: Path, pairs: Path, names: Sequence[str], *, max_tokens: int
) -> "tuple[EncodedPairs, EncodedPairs]":
    """Return the training pairs of a file, and its last tenth, which is held out."""
    from prosocial.core.chat import ChatTokenizer
    from prosocial.training.reward.encoded_pairs import EncodedPairs
    from prosocial.training.reward.held_out import split_pairs
    from prosocial.training.reward.pairs import read_pairs

    tokenizer, (first, last) = ChatTokenizer(base), split_pairs(read_pairs(pairs, attributes=names))
    how: dict[str, Any] = {"tokenizer": tokenizer, "attributes": names, "max_tokens": max_tokens}
    return EncodedPairs.from_pairs(first, **how), EncodedPairs.from_pairs(last, **how, require_labels=False)
