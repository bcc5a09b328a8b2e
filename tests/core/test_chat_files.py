"""Templates, named tokens and end ids are read from every file that transformers reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError

from .chat_families import CHATML, IM, byte_level

USER = [{"role": "user", "content": "hello  there"}]


def write(folder: Path, *, template: str | None = CHATML, tokens: list[Any] | None = None, **config: Any) -> Path:
    """Write a ChatML folder; `config` is added to tokenizer_config.json."""
    folder.mkdir(exist_ok=True)
    byte_level(IM if tokens is None else tokens).save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def assert_same_ids(folder: Path) -> None:
    reference = AutoTokenizer.from_pretrained(folder)
    expected = reference.apply_chat_template(USER, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ChatTokenizer(folder).encode_chat(USER) == expected


@pytest.mark.parametrize("place", ["file", "text", "list", "folder"])
def test_a_template_is_found_wherever_transformers_finds_it(tmp_path: Path, place: str) -> None:
    other = "{{ 'another' }}"
    template, config = None, {}
    if place == "text":
        config = {"chat_template": CHATML}
    elif place == "list":
        named = {"tool_use": other, "default": CHATML}
        config = {"chat_template": [{"name": name, "template": text} for name, text in named.items()]}
    else:
        template, config = CHATML, {"chat_template": other}
    folder = write(tmp_path, template=template, **config)
    if place == "folder":
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "rag.jinja").write_text("R{{ messages[0].content }}")
        assert ChatTokenizer(folder, template="rag").encode_chat(USER) == ChatTokenizer(folder).encode_text(
            "Rhello  there"
        )
    assert_same_ids(folder)


def test_processors_keep_their_template_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path, template=None)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
    assert ChatTokenizer(folder).encode_chat(USER)[0] == 421


def test_several_templates_without_a_default_are_listed(tmp_path: Path) -> None:
    folder = write(
        tmp_path, template=None, chat_template=[{"name": "a", "template": CHATML}, {"name": "b", "template": ""}]
    )
    with pytest.raises(ArtefactError, match="named 'default', found a, b: choose"):
        ChatTokenizer(folder)
    assert ChatTokenizer(folder, template="a").encode_chat(USER)


NAMED = "{{ bos_token }}{{ image_token }}{% if sep_token is defined %}S{% endif %}" + CHATML


@pytest.mark.parametrize(
    ("config", "sides"),
    [
        ({"bos_token": "<s>", "image_token": "<image>"}, {}),
        (
            {
                "bos_token": {"content": "<s>", "__type": "AddedToken"},
                "extra_special_tokens": {"image_token": "<image>"},
            },
            {},
        ),
        ({"image_token": "<image>"}, {"special_tokens_map.json": {"bos_token": {"content": "<|endoftext|>"}}}),
        ({"bos_token": "<s>", "additional_special_tokens": ["[X]"]}, {}),
        ({"bos_token": "<s>"}, {"added_tokens.json": {"hello": 421, "<s>": 423}}),
        (
            {
                "bos_token": "<|endoftext|>",
                "added_tokens_decoder": {
                    "422": {"content": "<|im_end|>", "special": True, "rstrip": True, "normalized": False},
                    "423": {"content": "  ", "special": False},
                },
            },
            {"special_tokens_map.json": {"bos_token": "<|im_end|>"}},
        ),
    ],
    ids=["keys", "named", "map", "additional", "added", "decoder"],
)
def test_named_and_added_tokens_come_from_every_file(
    tmp_path: Path, config: dict[str, Any], sides: dict[str, Any]
) -> None:
    folder = write(tmp_path, template=NAMED, **config)
    for name, value in sides.items():
        (folder / name).write_text(json.dumps(value))
    assert_same_ids(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (422,)),
        ({"config.json": {"eos_token_id": [420, 421]}}, (422, 420, 421)),
        ({"config.json": {"eos_token_id": 2, "text_config": {"eos_token_id": [7, 421]}}}, (422, 2, 7, 421)),
        (
            {"generation_config.json": {"eos_token_id": [421, 420]}, "config.json": {"eos_token_id": 420}},
            (421, 420, 422),
        ),
        ({"config.json": {"eos_token_id": [100000, -1, None, True]}}, (422,)),
    ],
)
def test_end_ids_are_the_union_of_all_files(tmp_path: Path, files: dict[str, Any], expected: tuple[int, ...]) -> None:
    folder = write(tmp_path)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    assert ChatTokenizer(folder).end_ids == expected


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json", "config.json"])
@pytest.mark.parametrize("text", ["{", "[1]", "\udcff"])
def test_a_broken_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    folder = write(tmp_path)
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtefactError, match=name):
        ChatTokenizer(folder)


def test_a_token_that_takes_in_white_space_beside_it_is_the_templates_own(tmp_path: Path) -> None:
    tokens = [AddedToken(text, special=True, lstrip=True, rstrip=True) for text in IM]
    folder = write(tmp_path, tokens=tokens)
    assert_same_ids(folder)
    spaced = ChatTokenizer(folder).encode_chat([{"role": "user", "content": " \n hello  there \n "}])
    assert spaced == ChatTokenizer(folder).encode_chat([{"role": "user", "content": " \n hello  there"}])


def test_a_tokenizer_that_makes_its_library_panic_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["continuing_subword_prefix"] = "a prefix that is longer than the merged words"
    data["model"]["merges"] = [["h", "e"]]
    path.write_text(json.dumps(data))

    with pytest.raises(ArtefactError, match=r"tokenizer\.json should hold a tokenizer"):
        ChatTokenizer(folder)


def test_a_token_id_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["vocab"] |= {"zebra": 2**31}
    path.write_text(json.dumps(data))

    with pytest.raises(ArtefactError, match="token ids below 16777216, found 2147483648"):
        ChatTokenizer(folder)


@pytest.mark.parametrize("value", [2**31, 2**63, -1, [1, 2**64]])
def test_an_end_id_that_no_token_can_have_is_left_out(tmp_path: Path, value: Any) -> None:
    folder = write(tmp_path / "model")
    own = ChatTokenizer(folder).end_ids
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))

    assert set(ChatTokenizer(folder).end_ids) - {1} <= set(own)
