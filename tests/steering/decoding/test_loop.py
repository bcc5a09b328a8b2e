"""The decoding loop: the same replies in any batch, rollback and fallback, and the model's own greedy replies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.draft import GateEvent
from prosocial.steering.decoding.loop import generate
from prosocial.steering.torch_engine import PlainEngine, SteeredEngine

from ..engines import END, TableEngine, start_of, user


@pytest.fixture(scope="module")
def tokenizer(llama_folder: Path) -> ChatTokenizer:
    return ChatTokenizer(llama_folder)


@pytest.fixture(scope="module")
def steered(pico: Any) -> Any:
    return pico.steered()


def test_a_dead_end_is_rolled_back_and_its_first_token_banned(pico: Any, tokenizer: ChatTokenizer) -> None:
    start = start_of(tokenizer, user("word5"))
    table = {start: {20: 1.0, 30: 0.0}, 20: {21: 0.0}, 21: {22: 0.0}, 22: {}, 30: {31: 0.0}, 31: {END: 0.0}}
    engine = TableEngine(table, pico.config())
    (reply,) = generate(engine, tokenizer, [user("word5")])
    assert reply.token_ids == (30, 31) and reply.finish == "end"
    assert reply.events == (GateEvent(step=3, action="rollback", back_to=0, banned=20),)
    assert reply.min_safe_set_size == 0 and reply.max_risk == dict.fromkeys(pico.categories, 0.25)
    (shorter,) = generate(engine, tokenizer, [user("word5")], rollback_tokens=1)
    steps = [(event.step, event.back_to, event.banned) for event in shorter.events]
    assert steps == [(3, 2, 22), (2, 2, None)]  # what was final once is not taken back later
    assert shorter.finish == "fallback"


def test_a_reply_without_a_safe_way_becomes_the_fallback(pico: Any, tokenizer: ChatTokenizer) -> None:
    start = start_of(tokenizer, user("word5"))
    branches: dict[int, dict[int, float]] = {token: {} for token in (20, 30, 40, 50)}
    engine = TableEngine({start: dict.fromkeys(branches, 0.0), **branches}, pico.config(fallback="No."))
    (reply,) = generate(engine, tokenizer, [user("word5")])
    assert reply.text == "No." and reply.token_ids == () and reply.finish == "fallback"
    assert [event.action for event in reply.events] == ["rollback", "rollback", "fallback"]
    assert [event.banned for event in reply.events] == [20, 30, None]


def test_more_retries_find_what_fewer_do_not(pico: Any, tokenizer: ChatTokenizer) -> None:
    start = start_of(tokenizer, user("word5"))
    table: dict[int, dict[int, float]] = {20: {}, 30: {}, 40: {}, 50: {51: 0.0}}
    engine = TableEngine({start: dict.fromkeys(table, 0.0), **table}, pico.config())
    (reply,) = generate(engine, tokenizer, [user("word5")], max_retries=3)
    assert reply.token_ids == (50, 51) and len(reply.events) == 3
    (none,) = generate(engine, tokenizer, [user("word5")], max_retries=0)
    assert none.finish == "fallback" and len(none.events) == 1


def test_nothing_safe_at_the_start_is_the_fallback_at_once(pico: Any, tokenizer: ChatTokenizer) -> None:
    start = start_of(tokenizer, user("word5"))
    engine = TableEngine({start: {}}, pico.config())
    (reply,) = generate(engine, tokenizer, [user("word5")])
    assert reply.events == (GateEvent(0, "fallback", 0, None),) and reply.text == pico.config().fallback


def test_a_rolled_back_row_does_not_disturb_the_others(pico: Any, tokenizer: ChatTokenizer) -> None:
    steered = pico.steered(harm_threshold=0.45, plausible_k=8)
    conversations = pico.conversations(12)
    together = steered.generate(conversations, tokenizer)
    alone = [steered.generate([conversation], tokenizer)[0] for conversation in conversations]
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]
    assert [reply.events for reply in together] == [reply.events for reply in alone]
    assert {"fallback", "length"} <= {reply.finish for reply in together}
    assert any(reply.events and reply.finish != "fallback" for reply in together)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_replies_do_not_depend_on_the_batch(
    pico: Any, steered: Any, tokenizer: ChatTokenizer, temperature: float
) -> None:
    conversations = pico.conversations(9)
    replies = [
        [reply.token_ids for reply in steered.generate(conversations, tokenizer, temperature=temperature, batch_size=n)]
        for n in (1, 2, 9)
    ]
    assert replies[0] == replies[1] == replies[2]


def test_noise_hangs_on_the_row_key(pico: Any, steered: Any, tokenizer: ChatTokenizer) -> None:
    conversations, keys = pico.conversations(4), ["a", "b", "c", "d"]
    forward = steered.generate(conversations, tokenizer, temperature=1.0, row_keys=keys)
    backward = steered.generate(conversations[::-1], tokenizer, temperature=1.0, row_keys=keys[::-1])
    assert [reply.token_ids for reply in forward] == [reply.token_ids for reply in backward[::-1]]
    same = steered.generate([conversations[0]] * 2, tokenizer, temperature=1.0, row_keys=["a", "a"])
    assert same[0].token_ids == same[1].token_ids == forward[0].token_ids
    other_seed = steered.generate(conversations, tokenizer, temperature=1.0, row_keys=keys, seed=1)
    assert [reply.token_ids for reply in other_seed] != [reply.token_ids for reply in forward]


def test_draws_follow_the_softmax(pico: Any, tokenizer: ChatTokenizer) -> None:
    start = start_of(tokenizer, user("word5"))
    engine = TableEngine({start: {20: 0.0, 30: np.log(3.0)}}, pico.config())
    replies = generate(engine, tokenizer, [user("word5")] * 2000, temperature=1.0, max_new_tokens=1, batch_size=500)
    share = np.mean([reply.token_ids == (30,) for reply in replies])
    assert abs(share - 0.75) < 0.04
    hot = generate(engine, tokenizer, [user("word5")] * 2000, temperature=4.0, max_new_tokens=1, batch_size=500)
    assert abs(np.mean([reply.token_ids == (30,) for reply in hot]) - 3**0.25 / (1 + 3**0.25)) < 0.05


def test_steered_replies_are_those_of_the_whole_forward_pass(pico: Any, steered: Any, tokenizer: ChatTokenizer) -> None:
    """Greedy through the cache, in batches, against recomputing everything for every token."""
    conversations = pico.conversations(3)
    for conversation, reply in zip(conversations, steered.generate(conversations, tokenizer), strict=True):
        ids, sizes = tokenizer.encode_chat(conversation), []
        for token in (*reply.token_ids, None):
            with torch.no_grad():
                output = steered(torch.tensor([ids]))
            if token is None:
                break
            assert output.logits[0, -1].argmax() == token
            sizes.append(int(output.safe_set_size[0, -1]))
            ids.append(token)
        assert reply.finish == "length" and reply.min_safe_set_size == min(sizes)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_plain_replies_are_those_of_transformers(pico: Any, tokenizer: ChatTokenizer, kind: str) -> None:
    model = pico.model(kind)
    conversations = pico.conversations(4)
    replies = generate(PlainEngine(model), tokenizer, conversations, max_new_tokens=10)
    for conversation, reply in zip(conversations, replies, strict=True):
        ids = torch.tensor([tokenizer.encode_chat(conversation)])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
        new = [token for token in expected[0, ids.shape[1] :].tolist() if token != END]
        assert list(reply.token_ids) == new and reply.min_safe_set_size is None and not reply.max_risk


def test_every_row_has_its_own_steering(pico: Any, steered: Any, tokenizer: ChatTokenizer) -> None:
    """The first five rows leave the batch at once, so that the others move up."""
    requests = [
        *[Steering(harm_threshold=0.0)] * 5,
        Steering(),
        Steering(preference={"empathy": 1.0}, reward_scale=8.0),
        Steering(harm_threshold=0.5),
        Steering(harm_threshold=0.9),
    ]
    conversations = [pico.conversations(1)[0]] * 9
    together = steered.generate(conversations, tokenizer, steering=requests)
    alone = [steered.generate(conversations[:1], tokenizer, steering=request)[0] for request in requests]
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]
    assert [reply.finish for reply in together[:5]] == ["fallback"] * 5
    assert len({reply.token_ids for reply in together}) >= 4


def test_a_prefill_is_read_and_not_repeated(pico: Any, steered: Any, tokenizer: ChatTokenizer) -> None:
    conversation = pico.conversations(1)[0]
    (whole,) = steered.generate([conversation], tokenizer, max_new_tokens=6)
    first = tokenizer.decode(whole.token_ids[:2])
    (rest,) = steered.generate([conversation], tokenizer, max_new_tokens=4, prefill=first)
    assert rest.token_ids == whole.token_ids[2:]
    assert rest.text == tokenizer.decode(whole.token_ids[2:])


def test_a_reply_ends_where_the_context_does(pico: Any, tokenizer: ChatTokenizer) -> None:
    n_prompt = len(tokenizer.encode_chat(user("word5")))
    start = start_of(tokenizer, user("word5"))
    engine = TableEngine({start: {20: 0.0}, 20: {20: 0.0}}, None, context_length=n_prompt + 4)
    (reply,) = generate(engine, tokenizer, [user("word5")])
    assert reply.token_ids == (20,) * 4 and reply.finish == "length"
    engine.context_length = n_prompt
    with pytest.raises(InputError, match="shorten"):
        generate(engine, tokenizer, [user("word5")])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"batch_size": 0}, "batch_size"),
        ({"row_keys": ["a", "b"]}, "row key"),
        ({"prefill": ["a", "b"]}, "prefill"),
        ({"steering": [Steering()] * 2}, "Steering"),
    ],
)
def test_arguments_out_of_range_are_refused(
    pico: Any, steered: Any, tokenizer: ChatTokenizer, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        generate(SteeredEngine(steered), tokenizer, pico.conversations(1), **options)


def test_a_plain_engine_is_not_steered(pico: Any, tokenizer: ChatTokenizer) -> None:
    engine = PlainEngine(pico.model("llama"))
    with pytest.raises(InputError, match="cannot be steered"):
        generate(engine, tokenizer, pico.conversations(1), steering=Steering(harm_threshold=0.2))


def test_a_broken_plain_model_is_an_error(pico: Any, tokenizer: ChatTokenizer) -> None:
    start = start_of(tokenizer, user("word5"))
    with pytest.raises(InputError, match="finite logit"):
        generate(TableEngine({start: {20: float("nan")}}, None), tokenizer, [user("word5")])


def test_no_conversations_are_no_replies(steered: Any, tokenizer: ChatTokenizer) -> None:
    assert steered.generate([], tokenizer) == []
