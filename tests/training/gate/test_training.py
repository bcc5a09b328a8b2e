"""The gate tells harmful tokens from harmless ones by the state they stand in, per category."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prosocial.core.errors import InputError, NoVerdictError, UnknownNameError
from prosocial.core.protocols import Judgement, Message
from prosocial.training.gate.replies import LabelledReply, label_replies, label_reply, read_replies, write_replies
from prosocial.training.gate.states import GateStates, collect_gate_states
from prosocial.training.gate.training import (
    GateTraining,
    contested_pools,
    dense_loss,
    harm_profiles,
    substitution_loss,
    train_gate,
)
from prosocial.training.state_files import StateFiles

from ..reward_helpers import USEFUL, WARM, make_model, make_tokenizer

CATEGORIES = ("violence", "drugs")
H, V = 12, 20


def synthetic(n_rows: int, seed: int) -> GateStates:
    """Token 3 is violence where the first component is positive; token 4 is drugs where the second is."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n_rows, H, generator=generator)
    hidden[:, -1] = 2.0  # a constant direction, as the last norm of a real model leaves one
    token = torch.randint(0, 8, (n_rows,), generator=generator)
    labels = torch.stack([(token == 3) & (hidden[:, 0] > 0), (token == 4) & (hidden[:, 1] > 0)], dim=-1).float()
    candidates = torch.randint(0, V, (n_rows, 6), generator=generator)
    zeros = torch.zeros(n_rows, dtype=torch.long)
    return GateStates(hidden, token, labels, candidates, torch.full((n_rows, 6), -4.0), zeros, zeros)


def test_a_token_is_risky_only_in_the_states_where_it_harms() -> None:
    training = GateTraining(rank=8, steps=500, batch_size=256, dense_weight=0.0)
    gate = train_gate(synthetic(6000, 0), categories=CATEGORIES, vocabulary_size=V, training=training, seed=0)
    test = synthetic(1000, 1)
    with torch.no_grad():
        risk = torch.sigmoid(gate.risk_logits(test.hidden, test.token[:, None]))[:, 0]
    for index in range(2):
        harmful = test.labels[:, index] == 1
        assert risk[harmful, index].mean() > 0.8 and risk[~harmful, index].mean() < 0.05


def test_the_dense_signal_reaches_tokens_that_no_reply_chose() -> None:
    states = synthetic(2000, 0)
    labels = torch.tensor([[1.0, 0.0]]).repeat(2000, 1)
    ratio = torch.where(states.candidates == 15, 6.0, -6.0)
    signal = GateStates(states.hidden, torch.full((2000,), 3), labels, states.candidates, ratio, *[states.position] * 2)
    training = GateTraining(rank=8, steps=200, batch_size=256, dense_weight=1.0, n_dense=6)
    gate = train_gate(signal, categories=CATEGORIES, vocabulary_size=V, training=training, seed=0)
    with torch.no_grad():
        risk = torch.sigmoid(gate.risk_logits(states.hidden[:200], torch.tensor([[15, 16]]).expand(200, -1)))
    assert risk[:, 0, 0].mean() > 0.8 and risk[:, 0, 1].max() < 0.2
    assert risk[:, 1, 0].mean() < risk[:, 0, 0].mean()  # 16, which the harmful model does not prefer, carries no label
    harmless = GateStates(**{**vars(signal), "labels": torch.zeros_like(labels)})
    assert dense_loss(gate, harmless, 6, torch.Generator().manual_seed(0)) == 0.0


def test_states_are_those_of_the_reply_positions(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    model = make_model(tokenizer)
    messages = ({"role": "user", "content": "how do i improve my garden plan?"},)
    replies = [
        LabelledReply(messages, USEFUL, frozenset({"drugs"})),
        LabelledReply(messages, WARM, frozenset()),
    ]
    states = collect_gate_states(
        model, make_model(tokenizer, seed=1), replies, tokenizer=tokenizer, categories=CATEGORIES, plausible_k=5
    )
    for row, text in enumerate((USEFUL, WARM)):
        at = states.reply == row
        assert states.token[at].tolist() == [*tokenizer.encode_text(text), tokenizer.end_ids[0]]
        assert states.position[at].tolist() == list(range(int(at.sum())))
        assert states.labels[at].unique(dim=0).tolist() == [[0.0, 1.0 - row]]
    same = collect_gate_states(model, model, replies, tokenizer=tokenizer, categories=CATEGORIES, plausible_k=5)
    assert same.log_ratio.abs().max() < 1e-5 < states.log_ratio.abs().max()


def test_only_tokens_in_a_span_carry_the_label(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    model, messages = make_model(tokenizer), ({"role": "user", "content": "how?"},)
    text = f"{WARM} {USEFUL}"
    marked = LabelledReply(messages, text, frozenset({"drugs"}), ((len(WARM), len(text)),))
    states = collect_gate_states(model, model, [marked], tokenizer=tokenizer, categories=CATEGORIES, plausible_k=5)
    n_warm = len(tokenizer.encode_text(WARM))
    assert states.labels[:n_warm].sum() == 0 and states.labels[n_warm:-1, 1].min() == 1
    assert states.labels[-1].sum() == 0  # the end token lies in no span
    nearer = collect_gate_states(
        model, model, [marked], tokenizer=tokenizer, categories=CATEGORIES, plausible_k=5, discount=0.5
    )
    ahead = nearer.labels[:n_warm, 1].tolist()
    assert ahead == [0.5 ** (n_warm - at) for at in range(n_warm)]
    assert torch.equal(nearer.labels[n_warm:], states.labels[n_warm:])


def test_with_a_discount_of_one_the_label_says_whether_harm_follows_at_all(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    model, messages = make_model(tokenizer), ({"role": "user", "content": "how?"},)
    text = f"{WARM} {USEFUL} {WARM}"
    marked = LabelledReply(messages, text, frozenset({"drugs"}), ((len(WARM) + 1, len(WARM) + 1 + len(USEFUL)),))
    states = collect_gate_states(
        model, None, [marked], tokenizer=tokenizer, categories=CATEGORIES, plausible_k=2, discount=1.0
    )
    until = len(tokenizer.encode_text(f"{WARM} {USEFUL}"))
    assert states.labels[:until, 1].min() == 1 and states.labels[until:].sum() == 0
    assert states.labels[:, 0].sum() == 0 and states.log_ratio.abs().max() == 0


def test_joined_states_keep_replies_apart() -> None:
    first, second = synthetic(4, 0), synthetic(3, 1)
    numbered = replace(first, reply=torch.tensor([0, 0, 1, 2]))
    more = replace(second, reply=torch.tensor([0, 1, 1]))
    joined = numbered.appended(more, torch.tensor([0, 2]), StateFiles(columns={**vars(numbered)}))
    assert joined.reply.tolist() == [0, 0, 1, 2, 3, 4]
    assert torch.equal(joined.hidden, torch.cat([first.hidden, second.hidden[[0, 2]]]))


def test_a_batch_holds_harms_harmless_places_of_such_tokens_and_others_alike() -> None:
    states = synthetic(600, 0)
    harms, mentions, others = contested_pools(states, V)
    assert (states.labels[harms].amax(-1) == 1).all() and (states.labels[mentions] == 0).all()
    assert set(states.token[torch.cat([harms, mentions])].tolist()) == {3, 4}
    assert sorted(torch.cat([harms, mentions, others]).tolist()) == list(range(600))
    assert len(contested_pools(states.rows(others), V)) == 1  # nothing harms there: one pool


def test_replies_round_trip_and_bad_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    messages = ({"role": "user", "content": "p"},)
    replies = [LabelledReply(messages, "a", frozenset({"drugs"})), LabelledReply(messages, "b", frozenset())]
    write_replies(path, replies)
    assert read_replies(path, categories=CATEGORIES) == replies
    write_replies(path, replies[1:])
    with pytest.raises(InputError, match="found 0 harmful of 1"):
        read_replies(path, categories=CATEGORIES)
    path.write_text(json.dumps({"prompt": "p", "reply": "a", "categories": ["fraud"]}))
    with pytest.raises(UnknownNameError, match="unknown harm category 'fraud'"):
        read_replies(path, categories=CATEGORIES)
    path.write_text(json.dumps({"prompt": "p", "reply": "a", "categories": "drugs"}))
    with pytest.raises(InputError, match="should be a list"):
        read_replies(path, categories=CATEGORIES)


class Drugs:
    """Calls everything drugs."""

    name, version = "drugs", "1"

    def judge(self, messages: list[Message], reply: str) -> Judgement:
        return Judgement(categories=frozenset({"drugs"}))


def test_labels_come_from_the_judge() -> None:
    assert label_reply([], "x", judge=Drugs()).categories == {"drugs"}  # type: ignore[arg-type]


class Moody(Drugs):
    """Calls everything drugs, where it says anything."""

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        return super().judge([], reply) if reply else Judgement(error="it timed out")


def test_a_reply_that_could_not_be_judged_is_never_training_data() -> None:
    labelled, n_unjudged = label_replies([[]] * 3, ["a", "", "b"], judge=Moody(), categories=["drugs"])
    assert [item.reply for item in labelled] == ["a", "b"] and n_unjudged == 1
    with pytest.raises(NoVerdictError, match="could not judge a reply: it timed out"):
        label_reply([], "", judge=Moody())
    with pytest.raises(InputError, match=r"labelled none: .* it timed out"):
        label_replies([[]] * 2, ["", ""], judge=Moody(), categories=["drugs"])
    with pytest.raises(InputError, match="should name violence, found 'drugs'"):
        label_replies([[]], ["a"], judge=Moody(), categories=["violence"])


def test_a_harmful_word_that_no_reply_put_there_is_known_in_its_own_category() -> None:
    """Each of two words is only ever drawn in its own place, and would harm in the other's too."""
    states = synthetic(6000, 0)
    is_apart = (states.token != 3) | (states.hidden[:, 0] > 0)
    states = states.rows(is_apart & ((states.token != 4) | (states.hidden[:, 1] > 0)))
    tokens, labels = harm_profiles(states, V)
    assert tokens.tolist() == [3, 4] and labels.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    training = GateTraining(rank=8, steps=300, batch_size=256, dense_weight=0.0, substitution_weight=1.0)
    gate = train_gate(states, categories=CATEGORIES, vocabulary_size=V, training=training, seed=0)
    where_drugs_came = states.hidden[states.labels[:, 1] == 1]
    with torch.no_grad():
        risk = torch.sigmoid(gate.risk_logits(where_drugs_came, torch.full((len(where_drugs_came), 1), 3)))[:, 0]
    assert risk[:, 0].mean() > 0.9 and risk[:, 1].mean() < 0.1
    harmless = replace(states, labels=torch.zeros_like(states.labels))
    profiles = harm_profiles(harmless, V)
    assert substitution_loss(gate, harmless, profiles, torch.Generator()) == 0.0


def test_a_harmful_word_is_known_where_no_reply_holds_it_and_its_mentions_stay() -> None:
    """Replies hold token 3 where the first component is above 0.5, as a harm, and below -1, as a mention."""
    states = synthetic(8000, 0)
    states = states.rows((states.token != 3) | (states.hidden[:, 0] > 0.5) | (states.hidden[:, 0] < -1.0))
    other = synthetic(2000, 1)
    never, mentioned = (other.hidden[:, 0] + 0.25).abs() < 0.5, other.hidden[:, 0] < -1.5
    found = []
    for weight in (0.0, 0.2):
        training = GateTraining(rank=8, steps=400, batch_size=256, dense_weight=0.0, substitution_weight=weight)
        gate = train_gate(states, categories=CATEGORIES, vocabulary_size=V, training=training, seed=0)
        with torch.no_grad():
            risk = torch.sigmoid(gate.risk_logits(other.hidden, torch.full((2000, 1), 3)))[:, 0, 0]
        found.append((float(risk[never].mean()), float(risk[mentioned].mean())))

    assert found[1][0] > found[0][0] + 0.05 and found[1][1] < 0.3, found
