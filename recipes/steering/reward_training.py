"""Trains a reward model on a file of labelled pairs and measures its accuracy on held-out pairs."""

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
    """Train a reward model on labelled pairs, write it to `out` and return a one-line summary.

    With several processes (`processes.joined`), each computes its share of every batch, and the first one writes.

    Args:
        base: folder of the checkpoint that the adapter is trained on.
        pairs: labelled pairs (JSONL); the last tenth is held out.
        attributes: attributes to train, in the order of the preference vector.
        settings: shape of the adapter and settings of the training.
        out: folder for the adapter and `training.json`.
        checkpoint: file of the training state; a killed training resumes from it.
        dtype: dtype of the frozen checkpoint in memory; the adapter is float32.
        seed: seed of the adapter, the batches and the preferences.
        on_start: called with the number of steps before the first step.
        on_step: called after each step.

    Raises:
        InputError: an attribute has no label, or `checkpoint` belongs to another training.
        DivergenceError: a loss or gradient is not finite; `checkpoint` keeps the last state before that.
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
    return f"accuracy on held-out pairs, one attribute at a time: {min(corners):.0%} to {max(corners):.0%}"


def _new_reward_model(
    base: Path, names: Sequence[str], settings: RewardSettings, *, dtype: str, seed: int
) -> "RewardModel":
    """Return the checkpoint with a new adapter, whose weights depend only on the seed."""
    import torch

    from prosocial.editing.checkpoints import load_model
    from prosocial.training.reward.model import RewardConfig, RewardModel
    from prosocial.training.reward.processes import own_device

    model: Any = load_model(base, dtype=getattr(torch, dtype))  # transformers' `to` has a wrong signature for mypy
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
    """Write the adapter, and `training.json` with every step, the accuracy and the agreement of the labels."""
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.training.reward.encoded_pairs import label_agreement

    reward.save(out, checkpoint_fingerprint=fingerprint(base), training=training.model_dump(mode="json"))
    agreement = {"attributes": list(reward.config.attributes), "share": label_agreement(train.signs)}
    steps = [asdict(record) for record in history]
    write_json(out / "training.json", {"steps": steps, "pair_accuracy": accuracy, "label_agreement": agreement})


def _encoded_pairs(
    base: Path, pairs: Path, names: Sequence[str], *, max_tokens: int
) -> "tuple[EncodedPairs, EncodedPairs]":
    """Return the training pairs of a file and its held-out pairs, the last tenth.

    Raises:
        InputError: the file has fewer than two pairs.
    """
    from prosocial.core.chat import ChatTokenizer
    from prosocial.training.reward.encoded_pairs import EncodedPairs
    from prosocial.training.reward.held_out import split_pairs
    from prosocial.training.reward.pairs import read_pairs

    tokenizer, (first, last) = ChatTokenizer(base), split_pairs(read_pairs(pairs, attributes=names))
    options: dict[str, Any] = {"tokenizer": tokenizer, "attributes": names, "max_tokens": max_tokens}
    return EncodedPairs.from_pairs(first, **options), EncodedPairs.from_pairs(last, **options, require_labels=False)
