"""The reward model learns both attributes though they conflict, and says so when something does not fit."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from prosocial.core.batches import encode_reply, pad_replies
from prosocial.core.errors import FingerprintError, InputError, UnknownNameError
from prosocial.core.protocols import Judgement, Message
from prosocial.steering.backbone import Backbone
from prosocial.training.reply_log_probability import reply_log_probability
from prosocial.training.reward.accuracy import pair_accuracy
from prosocial.training.reward.attributes import resolve_attributes
from prosocial.training.reward.encoded_pairs import EncodedPairs
from prosocial.training.reward.loss import attribute_losses, attribute_shares, sample_preferences
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.training.reward.pairs import label_pair, pairs_of, read_pairs, write_pairs
from prosocial.training.reward.settings import RewardTraining
from prosocial.training.reward.training import train_reward

from ..reward_helpers import NAMES, make_model, make_pairs, make_tokenizer

CONFIG = RewardConfig(attributes=NAMES, targets=r".*\.(q_proj|v_proj|down_proj)")


def test_conflicting_attributes_are_both_learned(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    pairs = EncodedPairs.from_pairs(make_pairs(8), tokenizer=tokenizer, attributes=NAMES, max_tokens=64)
    reward = RewardModel(make_model(tokenizer), CONFIG)
    before = pair_accuracy(reward, pairs, attributes=NAMES, pad_id=0)
    training = RewardTraining(steps=40, batch_size=6, learning_rate=0.03, concentration=0.3)
    losses = train_reward(
        reward, pairs, attributes=resolve_attributes(NAMES), training=training, pad_id=tokenizer.pad_id, seed=0
    )
    after = pair_accuracy(reward, pairs, attributes=NAMES, pad_id=0)
    assert sum(value["corner"] for value in before.values()) == 1.0  # one order is right for one attribute only
    assert all(value["corner"] == 1.0 for value in after.values())
    assert losses[-1].loss < losses[0].loss


def test_the_log_probability_is_that_of_the_reply_alone(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    model, messages = make_model(tokenizer), [{"role": "user", "content": "how do i improve my garden plan?"}]
    short, long = (
        encode_reply(tokenizer, messages, "list."),
        encode_reply(tokenizer, messages, "i hear that you feel sad."),
    )
    batch = pad_replies([short, long], [0, 1], pad_id=0)
    found = reply_log_probability(Backbone(model), batch)
    for row, item in enumerate((short, long)):
        ids = torch.tensor([item.prompt_ids + item.reply_ids])
        own = model(input_ids=ids).logits.log_softmax(-1)[0].detach()
        start = len(item.prompt_ids)
        expected = sum(float(own[at - 1, ids[0, at]]) for at in range(start, ids.shape[1]))
        assert abs(float(found[row].detach()) - expected) < 1e-3


def test_ties_and_missing_labels_carry_no_loss() -> None:
    first, second = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0])
    signs = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    shares, weights = attribute_shares(signs, torch.full((2, 2), 0.5))
    losses = attribute_losses(first, second, signs, torch.tensor([1.0, 1.0]), shares)
    assert torch.allclose(losses, torch.tensor([torch.nn.functional.softplus(torch.tensor(-1.0)), 0.0]))
    assert torch.equal(weights, torch.tensor([0.5, 0.0]))
    swapped = attribute_losses(second, first, -signs, torch.tensor([1.0, 1.0]), shares)
    assert torch.equal(losses, swapped)


def test_weights_times_losses_are_the_mean_of_the_weighted_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(6, generator=generator), torch.randn(6, generator=generator)
    signs, betas = torch.randint(-1, 2, (6, 3), generator=generator).float(), torch.tensor([0.1, 0.5, 1.0])
    preference = sample_preferences(6, 3, concentration=0.5, generator=generator)
    shares, weights = attribute_shares(signs, preference)
    losses = attribute_losses(first, second, signs, betas, shares)
    each = -torch.nn.functional.logsigmoid(signs * betas * (first - second)[:, None]) * (signs != 0)
    expected = ((each * preference).sum(0) / (signs != 0).sum(0)).sum()
    assert torch.allclose(weights @ losses, expected)


def test_preferences_lie_on_the_simplex() -> None:
    draws = sample_preferences(100, 5, concentration=0.3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(draws.sum(-1), torch.ones(100)) and bool((draws >= 0).all())


def test_a_saved_reward_model_gives_the_same_logits_and_knows_its_base(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    reward = RewardModel(make_model(tokenizer), CONFIG)
    for parameter in reward.parameters:
        torch.nn.init.normal_(parameter, std=0.1)
    reward.save(tmp_path / "reward", checkpoint_fingerprint="a" * 64, training={})
    again = RewardModel.load(tmp_path / "reward", make_model(tokenizer), checkpoint_fingerprint="a" * 64)
    ids, mask, preference = torch.arange(5)[None], torch.ones(1, 5, dtype=torch.long), torch.eye(2)[:1]
    assert torch.equal(again.logits(ids, mask, preference), reward.logits(ids, mask, preference))
    with pytest.raises(FingerprintError, match="bbbb"):
        RewardModel.load(tmp_path / "reward", make_model(tokenizer), checkpoint_fingerprint="b" * 64)


class Warmth:
    """Scores empathy only."""

    name, version = "warmth", "1"

    def judge(self, messages: list[Message], reply: str) -> Judgement:
        return Judgement(attributes={"empathy": float("feel" in reply)})


def test_labels_come_from_scores() -> None:
    pair = label_pair([], "i feel", "no", judge=Warmth(), attributes=NAMES)  # type: ignore[arg-type]
    assert pair.labels == {"empathy": "first", "helpfulness": "missing"} and pair.signs(NAMES) == [1.0, 0.0]
    assert label_pair([], "no", "no", judge=Warmth(), attributes=NAMES).labels["empathy"] == "tie"  # type: ignore[arg-type]


def test_pairs_round_trip_and_bad_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, make_pairs(3))
    assert read_pairs(path, attributes=NAMES) == make_pairs(3)
    row = {"prompt": "p", "first": "a", "second": "b", "labels": {"empathy": "first"}}
    for change, message in (
        ({"labels": {"kindness": "first"}}, "unknown attribute 'kindness': known are empathy, helpfulness"),
        ({"labels": {"empathy": "best"}}, "first, second, tie, missing, found 'best'"),
        ({"second": "a"}, "row 1 should have two different replies, found 'a' twice"),
        ({"labels": 3}, "should map attribute names"),
        ({"prompt": None}, "should hold a prompt"),
        ({"prompt": None, "messages": [{"role": "user"}]}, "a message with role and content"),
    ):
        path.write_text(json.dumps(row | change))
        with pytest.raises(InputError, match=message):
            read_pairs(path, attributes=NAMES)
    path.write_text(json.dumps({"prompt": "p"}))
    with pytest.raises(InputError, match="should have the keys first and second, or chosen and rejected"):
        read_pairs(path, attributes=NAMES)


def test_a_data_set_holds_pairs_as_a_file_does(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "first": "a", "second": "b", "labels": {"empathy": "first"}},
        {"prompt": "p", "first": "c", "second": "d", "labels": {"helpfulness": "second"}},
    ]
    data_set = Dataset.from_list(rows)
    data_set.save_to_disk(str(tmp_path / "set"))
    write_pairs(tmp_path / "pairs.jsonl", pairs_of(rows, attributes=NAMES))
    expected = read_pairs(tmp_path / "pairs.jsonl", attributes=NAMES)

    assert [pair.signs(NAMES) for pair in expected] == [[1.0, 0.0], [0.0, -1.0]]
    assert pairs_of(data_set, attributes=NAMES) == read_pairs(tmp_path / "set", attributes=NAMES) == expected
    with pytest.raises(InputError, match="should be a JSONL file or a saved data set"):
        read_pairs(tmp_path, attributes=NAMES)


def test_an_attribute_without_labels_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    with pytest.raises(InputError, match="found none for truthfulness"):
        EncodedPairs.from_pairs(make_pairs(2), tokenizer=tokenizer, attributes=[*NAMES, "truthfulness"], max_tokens=64)


def test_attribute_names_are_checked() -> None:
    assert resolve_attributes(["empathy"], betas={"empathy": 0.5})[0].beta == 0.5
    with pytest.raises(UnknownNameError, match="unknown attribute 'charm'"):
        resolve_attributes(["charm"])
    with pytest.raises(InputError, match="different names"):
        resolve_attributes(["empathy", "empathy"])
    with pytest.raises(InputError, match="above 0"):
        resolve_attributes(["empathy"], betas={"empathy": 0.0})
