"""Prompts of many model families: the ids of transformers for harmless texts, and no control token for forged ones."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from prosocial.core.chat import ChatTokenizer
from prosocial.core.protocols import Message

from .chat_families import FAMILIES

TEXTS = (
    "hello there",
    "  leading and trailing white space \n",
    "two\n\nparagraphs\n\n\nand a list:\n- 1\n-\t2",
    "The café in Straße 12, 東京 — naïve? 🙂 don't",
    "def f(x):\n    return x  +  1",
    "e\u0301 \ufb01ne \uff21\uff22 \u00a0 x\u200by",
)


def turns(*texts: str, system: str | None = None) -> list[Message]:
    """Return a conversation whose texts alternate between user and assistant."""
    start: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    return start + [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


HARMLESS = [
    *(turns(text) for text in TEXTS),
    turns(*TEXTS[:3]),
    turns(TEXTS[4], TEXTS[3], TEXTS[5], TEXTS[1], TEXTS[0]),
    turns("hi", "<think>\nlet me see\n</think>\n\nhello", "and now?"),
    turns(TEXTS[0], system="You are kind."),
    turns(TEXTS[1], TEXTS[0], TEXTS[2], system="\n You are kind. \n"),
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("families")
    return {name: family.write(top / name) for name, family in FAMILIES.items()}


@cache
def opened(folder: Path) -> ChatTokenizer:
    return ChatTokenizer(folder)


@cache
def reference_of(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def reference_ids(reference: Any, messages: Sequence[Message]) -> list[int]:
    ids: list[int] = reference.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


@pytest.mark.parametrize("name", FAMILIES)
def test_harmless_prompts_have_the_ids_of_transformers(folders: dict[str, Path], name: str) -> None:
    family, tokenizer = FAMILIES[name], opened(folders[name])
    reference = reference_of(folders[name])
    for messages in HARMLESS:
        has_system = messages[0]["role"] == "system"
        if "<think>" in messages[1 % len(messages)]["content"] and name in ("qwen-2.5", "smollm-3"):
            continue  # the template keeps an assistant's <think>, which is an added token: text for us
        if family.refuses_system and has_system:
            first = f"{messages[0]['content']}\n\n{messages[1]['content']}"
            folded = [{"role": "user", "content": first}, *messages[2:]]
            assert tokenizer.encode_chat(messages) == reference_ids(reference, folded)
        else:
            assert tokenizer.encode_chat(messages) == reference_ids(reference, messages), messages
    assert tokenizer.takes_system is not family.refuses_system
    assert bool(tokenizer.role_markers) is family.markers, tokenizer.role_markers


PIECES = st.sampled_from(
    [
        *(
            "<",
            ">",
            "|",
            "<|",
            "|>",
            "<|im_",
            "start|>",
            "</",
            "s>",
            "[",
            "INST]",
            "\\",
            "system",
            "user",
            "assistant",
            ":",
        ),
        *("\n", "\n\n", " ", "  ", "\t", "a", "word", "USER:", "### Response:", "\u0338", "\u0301", "\ufb01", "İ", "ß"),
        *("\ue000", "\uf8ff", "\U000f0000", "\U00100000", "ꙮ", "\0", "\1", "\2", "▁", "Ġ", "<0x0A>", "{{ bos_token }}"),
        *("<think>", "</think>", "<|IM_END|>", "\uff1c/s\uff1e", "<unk>", "[UNK]", "</ s>", "<<SYS>>", "<h1>"),
    ]
)


@cache
def control_tokens(folder: Path) -> dict[int, str]:
    """Return the added tokens of a tokenizer, white space and the unknown-word token apart."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    added = tokenizer.get_added_tokens_decoder()
    return {
        index: token.content
        for index, token in added.items()
        if token.content.strip() and token.content not in ("<unk>", "[UNK]")
    }


def control_ids(folder: Path, messages: Sequence[Message], prefill: str = "") -> list[int]:
    known = control_tokens(folder)
    return [index for index in opened(folder).encode_chat(messages, prefill=prefill) if index in known]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40)
@given(data=st.data())
def test_no_content_becomes_a_control_token(folders: dict[str, Path], name: str, data: st.DataObject) -> None:
    folder = folders[name]
    names = st.sampled_from(sorted(control_tokens(folder).values()))
    content = st.lists(PIECES | names | st.text(max_size=3), max_size=8).map("".join).filter(str.strip)
    texts = data.draw(st.lists(content, min_size=1, max_size=3).filter(lambda texts: len(texts) % 2 == 1))
    system = data.draw(st.none() | content)
    prefill = data.draw(st.just("") | content)
    texts = [text.replace("</think>", "") if at % 2 else text for at, text in enumerate(texts)]

    forged = control_ids(folder, turns(*texts, system=system), prefill)

    plain = turns(*("word" for _ in texts), system=None if system is None else "word")
    assert forged == control_ids(folder, plain)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25)
@given(data=st.data())
def test_other_texts_have_the_ids_of_transformers(folders: dict[str, Path], name: str, data: st.DataObject) -> None:
    """Whatever is typed, unless transformers would read a control token or a role in it."""
    folder, reference = folders[name], reference_of(folders[name])
    texts = data.draw(st.lists(st.text(max_size=12).filter(str.strip), min_size=1, max_size=3))
    messages = turns(*(texts if len(texts) % 2 else texts[:1]))
    expected = reference_ids(reference, messages)
    known = control_tokens(folder)
    assume([index for index in expected if index in known] == control_ids(folder, turns(*("word" for _ in messages))))

    actual = opened(folder).encode_chat(messages)

    marked = any(marker.lower() in text.lower() for text in texts for marker in opened(folder).role_markers)
    assert actual == expected or marked
