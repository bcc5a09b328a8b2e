"""Forbidden phrases and stop strings: found across tokens, whatever the writing, and never in a reply."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.draft import GateEvent
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.phrases import PhraseFinder, folded

from ..engines import END, HashEngine, TableEngine, numbered, start_of, user, write_byte_tokenizer

texts = st.text("bom B\uff22é. ", max_size=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("bytes")
    write_byte_tokenizer(found)
    return found


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ChatTokenizer:
    return ChatTokenizer(folder)


def hash_engine(pico: Any, tokenizer: ChatTokenizer, *, share_dead: float = 0.0, **changes: Any) -> HashEngine:
    return HashEngine(pico.config(**changes), tokenizer.vocabulary_size, share_dead)


@given(texts, st.lists(st.text("bom ", min_size=1, max_size=5), max_size=4))
def test_the_first_phrase_is_found_wherever_reading_began(text: str, phrases: list[str]) -> None:
    finder = PhraseFinder(phrases)
    places = [text.find(phrase) for phrase in phrases if phrase in text]
    assert finder.find(text) == min(places, default=None)
    searched = next((n for n in range(len(text), -1, -1) if not any(phrase in text[:n] for phrase in phrases)), 0)
    assert (finder.find(text, searched=searched) is None) == (not places)


@given(texts, st.lists(st.text("bom ", min_size=1, max_size=5), max_size=4))
def test_what_is_open_is_what_more_text_could_complete(text: str, phrases: list[str]) -> None:
    assume(not any(phrase in text for phrase in phrases))
    opened = PhraseFinder(phrases).open_from(text)
    could = [at for at in range(len(text)) if any(p.startswith(text[at:]) for p in phrases)]
    assert opened == min(could, default=len(text))


@pytest.mark.parametrize(
    "text", ["BOMB", "\uff42\uff4f\uff4d\uff42", "bo\u200bmb", "b\u00adomb", "\U0001d41b\U0001d428mb", "ⓑⓞⓜⓑ"]
)
def test_writing_a_phrase_otherwise_does_not_hide_it(text: str) -> None:
    assert folded(f"a {text}") == "a bomb"


def test_spaces_are_all_one() -> None:
    assert folded("make \n\t a\u00a0b") == "make a b"


def test_a_phrase_is_taken_back_to_its_first_token(pico: Any, llama_folder: Path) -> None:
    words = ChatTokenizer(llama_folder)
    start = start_of(words, user("word5"))
    table = {start: {20: 1.0, 30: 0.0}, 20: {21: 1.0, 40: 0.0}, 21: {22: 1.0}, 40: {END: 0.0}, 30: {END: 0.0}}
    engine = TableEngine(table, pico.config(forbidden_phrases=["WORD16 word17"]))  # tokens 21 and 22
    (reply,) = generate(engine, words, [user("word5")])
    assert reply.text == "word15 word35" and reply.token_ids == (20, 40)
    assert reply.events == (GateEvent(step=3, action="rollback", back_to=1, banned=21, reason="phrase"),)
    (given_up,) = generate(engine, words, [user("word5")], max_retries=0)
    assert given_up.finish == "fallback" and given_up.text == pico.config().fallback
    assert given_up.events == (GateEvent(3, "fallback", 3, None, "phrase"),)


def test_a_phrase_across_bytes_and_tokens_is_found(pico: Any, folder: Path, tokenizer: ChatTokenizer) -> None:
    """The circled letter is three tokens, of which none is text alone."""
    ids = tokenizer.encode_text("Ⓑ")  # unknown to the word level: its own token
    assert len(ids) == 1
    level = {tokenizer.decode([token]): token for token in range(2, tokenizer.vocabulary_size)}
    spelled = [level["a"], *_bytes_of(folder, "Ⓑ"), level["omb"]]
    start = start_of(tokenizer, user("a"))
    table: dict[int, dict[int, float]] = {start: {level["."]: 1.0}, level["."]: {spelled[1]: 1.0, END: 0.0}}
    table |= {before: {after: 1.0} for before, after in pairwise(spelled[1:])}
    engine = TableEngine(table, pico.config(forbidden_phrases=["bomb"]), vocabulary_size=tokenizer.vocabulary_size)
    (reply,) = generate(engine, tokenizer, [user("a")])
    assert reply.text == "." and reply.events[0].back_to == 1 and reply.events[0].banned == spelled[1]


def _bytes_of(folder: Path, character: str) -> list[int]:
    """Return the tokens of the single bytes of a character."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()
    (whole,) = (word for word, token in vocabulary.items() if tokenizer.decode([token]) == character)
    return [vocabulary[letter] for letter in whole]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05]), st.sampled_from([0, 3, 8]))
def test_no_reply_holds_a_phrase(
    pico: Any, tokenizer: ChatTokenizer, number: int, share_dead: float, rollback: int
) -> None:
    engine = hash_engine(
        pico, tokenizer, share_dead=share_dead, forbidden_phrases=["omb", "bo b"], max_retries=6, max_new_tokens=40
    )
    (reply,) = generate(engine, tokenizer, [numbered(number)], rollback_tokens=rollback)
    assert "omb" not in folded(reply.text) and "bo b" not in folded(reply.text)
    free = generate(hash_engine(pico, tokenizer, max_new_tokens=40), tokenizer, [numbered(number)])[0]
    assert reply.events or reply.text == free.text


def test_the_property_can_fail(pico: Any, tokenizer: ChatTokenizer) -> None:
    """The control: without the phrases many replies hold one, and with them some are rescued."""
    conversations = [numbered(number) for number in range(40)]
    free = generate(hash_engine(pico, tokenizer, max_new_tokens=40), tokenizer, conversations)
    assert sum("omb" in folded(reply.text) for reply in free) > 10
    engine = hash_engine(pico, tokenizer, forbidden_phrases=["omb"], max_retries=8, max_new_tokens=40)
    bound = generate(engine, tokenizer, conversations)
    assert sum(reply.finish != "fallback" and len(reply.events) > 0 for reply in bound) > 10
    assert {event.reason for reply in bound for event in reply.events} == {"phrase"}


def test_a_stop_string_ends_a_reply_before_it(pico: Any, tokenizer: ChatTokenizer) -> None:
    conversations = [numbered(number) for number in range(30)]
    free = generate(hash_engine(pico, tokenizer), tokenizer, conversations)
    stopped = generate(hash_engine(pico, tokenizer, stop=["mb"]), tokenizer, conversations, stop=["st"])
    for reply, whole in zip(stopped, free, strict=True):
        places = [whole.text.find(text) for text in ("mb", "st") if text in whole.text]
        assert reply.text == whole.text[: min(places, default=None)]
        assert (reply.finish == "stop") == bool(places)
        assert whole.token_ids[: len(reply.token_ids)] == reply.token_ids
    assert len({reply.finish for reply in stopped}) > 1


@pytest.mark.parametrize(
    "change", [{"forbidden_phrases": ["\u200b "]}, {"stop": [""]}, {"stop": "x"}, {"rollback_tokens": -1}]
)
def test_a_config_with_an_empty_phrase_is_refused(pico: Any, change: dict[str, Any]) -> None:
    data = pico.config().model_dump(by_alias=True)
    with pytest.raises(ArtefactError, match=next(iter(change))):
        DecodingConfig.parse(data | change, source="it")
