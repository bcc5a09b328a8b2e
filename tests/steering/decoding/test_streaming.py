"""Streaming: only final text, the same text as in one go, whole characters, and a cache that is freed."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.export import Bundle
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.phrases import folded
from prosocial.steering.decoding.streaming import ReplyStream, stream

from ..engines import END, HashEngine, TableEngine, numbered, start_of, user, write_byte_tokenizer

PHRASES, STOPS = ["omb", "bo b"], ["st.", "top"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("bytes")
    write_byte_tokenizer(folder)
    return ChatTokenizer(folder)


def hash_engine(pico: Any, tokenizer: ChatTokenizer, *, share_dead: float = 0.0, **changes: Any) -> HashEngine:
    settings = {"max_new_tokens": 40, "max_retries": 4} | changes
    return HashEngine(pico.config(**settings), tokenizer.vocabulary_size, share_dead)


@settings(max_examples=150)
@given(
    number=st.integers(0, 10**6),
    share_dead=st.sampled_from([0.0, 0.03, 0.1]),
    rollback=st.sampled_from([0, 1, 3, 8]),
    phrases=st.sampled_from([[], PHRASES]),
    stop=st.sampled_from([[], STOPS]),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_the_pieces_are_the_reply(
    pico: Any,
    tokenizer: ChatTokenizer,
    number: int,
    share_dead: float,
    rollback: int,
    phrases: list[str],
    stop: list[str],
    temperature: float,
) -> None:
    engine = hash_engine(pico, tokenizer, share_dead=share_dead, forbidden_phrases=phrases, stop=stop)
    options: Any = {"rollback_tokens": rollback, "temperature": temperature}
    (whole,) = generate(engine, tokenizer, [numbered(number)], **options)
    streamed = stream(engine, tokenizer, numbered(number), **options)
    pieces = list(streamed)
    assert streamed.reply == whole and all(pieces)
    if streamed.withdrawn:
        assert whole.finish == "fallback" and "".join(pieces) == f"{streamed.withdrawn}\n{whole.text}"
        assert not any(phrase in folded(streamed.withdrawn) for phrase in phrases)
        assert not any(text in streamed.withdrawn for text in stop)
    else:
        assert "".join(pieces) == whole.text
    assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])
    assert engine.alive == [0]


def test_every_kind_of_end_is_among_the_examples(pico: Any, tokenizer: ChatTokenizer) -> None:
    """The control of the property: rollbacks, fallbacks before and after text, stops, ends and limits all happen."""
    engine = hash_engine(pico, tokenizer, share_dead=0.05, forbidden_phrases=PHRASES, stop=STOPS, max_new_tokens=20)
    found: list[ReplyStream] = []
    for number in range(150):
        found.append(stream(engine, tokenizer, numbered(number), rollback_tokens=2))
        list(found[-1])
    replies = [one.reply for one in found if one.reply]
    assert {reply.finish for reply in replies} == {"end", "length", "stop", "fallback"}
    fallbacks = [one for one in found if one.reply and one.reply.finish == "fallback"]
    assert {bool(one.withdrawn) for one in fallbacks} == {True, False}
    assert {event.reason for reply in replies for event in reply.events} == {"empty_safe_set", "phrase"}
    assert any(reply.events and reply.finish != "fallback" for reply in replies)


def count_steps(engine: HashEngine, streamed: ReplyStream) -> list[int]:
    """Return how many decisions the engine had made when each piece came."""
    return [engine.n_steps for _ in streamed]


def test_a_token_is_shown_as_soon_as_it_is_final(pico: Any, tokenizer: ChatTokenizer) -> None:
    level = {tokenizer.decode([token]): token for token in range(2, tokenizer.vocabulary_size)}
    letters = [level[text] for text in ("b", "o", "m", "a", ".", "st", "B", "bo", "mb", " ", "top")]
    table = {before: {after: 0.0} for before, after in itertools.pairwise(letters)}
    start = start_of(tokenizer, user("a.bo"))
    table = {start: {letters[1]: 0.0}} | {token: ways for token, ways in table.items() if token != start}
    for rollback in (0, 1, 3):
        engine = _Counting({**table}, pico.config(max_new_tokens=6), vocabulary_size=tokenizer.vocabulary_size)
        engine.table[letters[-1]] = {END: 0.0}
        streamed = stream(engine, tokenizer, user("a.bo"), rollback_tokens=rollback)
        steps = [engine.n_steps for _ in streamed]
        assert streamed.reply is not None and len(streamed.reply.token_ids) == 6
        assert steps == [*range(rollback + 1, 6), 6]


class _Counting(TableEngine):
    n_steps = 0

    def prefill(self, *args: Any, **options: Any) -> Any:
        stream = super().prefill(*args, **options)
        step, self.n_steps = stream.step, 1

        def counted(tokens: Any) -> None:
            self.n_steps += 1
            step(tokens)

        stream.step = counted  # type: ignore[method-assign]
        return stream


def test_where_no_retry_is_left_nothing_is_held_back(pico: Any, tokenizer: ChatTokenizer) -> None:
    engine = hash_engine(pico, tokenizer)
    steps = count_steps(engine, stream(engine, tokenizer, numbered(5), rollback_tokens=8, max_retries=0))
    assert steps[0] <= 3  # the bytes of one character at most


def test_closing_frees_the_cache(pico: Any, tokenizer: ChatTokenizer) -> None:
    engine = hash_engine(pico, tokenizer)
    streamed = stream(engine, tokenizer, numbered(3), rollback_tokens=0)
    next(streamed)
    assert engine.alive == [1]
    streamed.close()
    assert engine.alive == [0] and streamed.reply is None and list(streamed) == []
    dropped = stream(engine, tokenizer, numbered(3), rollback_tokens=0)
    next(dropped)
    del dropped
    assert engine.alive == [0]


def test_a_bad_request_is_refused_at_once(pico: Any, tokenizer: ChatTokenizer) -> None:
    with pytest.raises(InputError, match="kindness"):
        stream(hash_engine(pico, tokenizer), tokenizer, numbered(1), steering=Steering(preference={"kindness": 1}))


def test_torch_and_graph_stream_the_same(pico: Any, llama_bundle: Path) -> None:
    bundle, steered = Bundle.open(llama_bundle, threads=1), pico.steered()
    for conversation in pico.conversations(3):
        options: Any = {"temperature": 0.9, "seed": 5, "rollback_tokens": 2}
        by_graph = list(bundle.stream(conversation, **options))
        assert by_graph == list(steered.stream(conversation, bundle.tokenizer, **options)) and len(by_graph) > 3
        assert "".join(by_graph) == bundle.generate([conversation], **options)[0].text
