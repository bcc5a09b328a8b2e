"""Trains a reward model on a file of labelled pairs and measures its accuracy on held-out pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosocial.core.errors import InputError
from prosocial.core.files import write_json
from prosocial.core.placement import REFERENCE, Placement
from prosocial.core.progress import SILENT, Progress

from .schema import RewardSettings

if TYPE_CHECKING:
    from prosocial.training.reward.attributes import Attribute
    from prosocial.training.reward.encoded_pairs import EncodedPairs
    from prosocial.training.reward.model import RewardModel
    from prosocial.training.reward.training_state import StepRecord


def train_on_pairs(
    base: Path,
    pairs: Path,
    *,
    attributes: "Sequence[Attribute]",
    settings: RewardSettings,
    out: Path,
    checkpoint: Path,
    placement: Placement = REFERENCE,
    seed: int = 0,
    progress: Progress = SILENT,
    on_note: Callable[[str], None] = lambda text: None,
) -> str:
    """Train a reward model on labelled pairs, write it to `out` and return a one-line summary.

    With several processes (`processes.joined`), each computes its share of every batch, and the first one writes.

    Args:
        base: folder of the checkpoint that the adapter is trained on.
        pairs: labelled pairs (JSONL); the last tenth is held out.
        attributes: attributes to train, in the order of the preference vector.
        settings: shape of the adapter and settings of the training.
        out: folder for the adapter and `training.json`.
        checkpoint: file of the training state; what was killed, in training or measuring, resumes from it. One of
            another training is renamed.
        placement: device and dtype of the frozen checkpoint; the adapter is float32.
        seed: seed of the adapter, the batches and the preferences.
        progress: counts the steps, then the pairs that are measured.
        on_note: called with a line of text where `checkpoint` was renamed.

    Raises:
        InputError: an attribute has no label, the tokenizer has ids that the model lacks, or a pair does not fit into
            memory.
        DivergenceError: a loss or gradient is not finite; `checkpoint` keeps the last state before that.
    """
    from prosocial.core.chat import ChatTokenizer
    from prosocial.editing.checkpoints.fingerprint import fingerprint
    from prosocial.training.reward.accuracy import pair_accuracy
    from prosocial.training.reward.processes import is_first
    from prosocial.training.reward.settings import RewardTraining
    from prosocial.training.reward.training import train_reward

    names, pad_id = [attribute.name for attribute in attributes], ChatTokenizer(base).pad_id
    training = RewardTraining(**{key: getattr(settings, key) for key in RewardTraining.model_fields})
    train, held_out = _encoded_pairs(base, pairs, names, max_tokens=training.max_tokens)
    digest = fingerprint(base)
    reward = _new_reward_model(base, names, settings, placement=placement, seed=seed)
    _require_known_ids(reward, (train, held_out), base)
    progress.start(training.steps, "train the reward model")
    history = train_reward(
        reward,
        train,
        attributes=attributes,
        training=training,
        pad_id=pad_id,
        seed=seed,
        made_with=f"{digest} in {placement.dtype}",
        checkpoint=checkpoint,
        on_step=progress.advance,
        on_note=on_note,
    )
    progress.start(len(held_out) * (len(names) + 1), "measure it on held-out pairs")
    accuracy = pair_accuracy(reward, held_out, attributes=names, pad_id=pad_id, on_pairs=progress.advance)
    if is_first():
        reward.save(out, checkpoint_fingerprint=digest, training=training.model_dump(mode="json"))
        _write_history(out, history, train, names, accuracy=accuracy, placement=placement)
    corners = [value["corner"] for value in accuracy.values()]
    return f"accuracy on held-out pairs, one attribute at a time: {min(corners):.0%} to {max(corners):.0%}"


def _new_reward_model(
    base: Path, names: Sequence[str], settings: RewardSettings, *, placement: Placement, seed: int
) -> "RewardModel":
    """Return the checkpoint with a new adapter, whose weights depend only on the seed."""
    import torch

    from prosocial.editing.checkpoints import load_model
    from prosocial.training.reward.model import RewardConfig, RewardModel

    model = load_model(base, dtype=placement.torch_dtype, device=placement.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RewardModel(model, RewardConfig(attributes=tuple(names), **settings.adapter.model_dump()))


def _require_known_ids(reward: "RewardModel", encoded: "Sequence[EncodedPairs]", base: Path) -> None:
    """Raise InputError if a pair has a token that the model has no output for."""
    size = len(reward.backbone.output_weight)
    largest = max(max(one.prompt_ids + one.reply_ids) for pairs in encoded for one in pairs.sequences)
    if largest >= size:
        raise InputError(
            f"the tokenizer in {base} should have ids below the model's {size} tokens, a pair has id {largest}: use "
            "the tokenizer that the model was trained with"
        )


def _write_history(
    out: Path,
    history: "Sequence[StepRecord]",
    train: "EncodedPairs",
    names: Sequence[str],
    *,
    accuracy: Mapping[str, Any],
    placement: Placement,
) -> None:
    """Write `training.json`: every step, the accuracy, the agreement of the labels, and where it was computed."""
    from prosocial.training.reward.encoded_pairs import label_agreement

    agreement = {"attributes": list(names), "share": label_agreement(train.signs)}
    measured = {"pair_accuracy": accuracy, "label_agreement": agreement, "computed_on": asdict(placement)}
    write_json(out / "training.json", {"steps": [asdict(record) for record in history], **measured})


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
