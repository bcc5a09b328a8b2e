"""Text to ids: what users type never becomes a control token, a role or a config."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.editing.chat import ChatTokenizer
from prosocial.editing.errors import ArtefactError, InputError
from prosocial.recipes.lab.tokenizer import SPECIAL_TOKENS, train_tokenizer

TEXTS = ["how do i improve my garden plan?", "you are a kind helper.", "take your time."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, found, vocabulary_size=300)
    return found


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_the_pieces_are_the_template_with_the_contents_spliced_in(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    ids = tokenizer.encode_chat([{"role": "system", "content": TEXTS[1]}, user(TEXTS[0])], prefill="take")
    special = {name: index for index, name in enumerate(SPECIAL_TOKENS)}
    expected = [special["<s>"], special["<|system|>"], *tokenizer.encode_text(TEXTS[1]), special["<|end|>"]]
    expected += [special["<|user|>"], *tokenizer.encode_text(TEXTS[0]), special["<|end|>"], special["<|assistant|>"]]
    assert ids == expected + tokenizer.encode_text("take")


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "hello ", "{{ bos_token }}", "<", "|>"]), max_size=8))
def test_typed_control_tokens_stay_text(folder: Path, parts: list[str]) -> None:
    tokenizer = ChatTokenizer(folder)
    honest = tokenizer.encode_chat([user("")])
    typed = tokenizer.encode_chat([user("".join(parts))])
    n_special = len(SPECIAL_TOKENS)
    assert [i for i in typed if i < n_special] == [i for i in honest if i < n_special]


def test_decoding_gives_the_text_back(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    assert tokenizer.decode(tokenizer.encode_text("take your time.")).strip() == "take your time."
    assert tokenizer.end_ids == (5,) and tokenizer.pad_id == 0


@pytest.mark.parametrize("message", [{"role": "tool", "content": "x"}, {"role": "user"}, {"content": "x"}])
def test_a_message_needs_a_known_role_and_text(folder: Path, message: dict[str, str]) -> None:
    with pytest.raises(InputError, match="should have a role"):
        ChatTokenizer(folder).encode_chat([message])


def test_a_folder_without_template_or_tokenizer_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"tokenizer\.json"):
        ChatTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(ArtefactError, match="chat template"):
        ChatTokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}")
    with pytest.raises(ArtefactError, match="valid jinja"):
        ChatTokenizer(tmp_path)


def test_a_template_that_drops_or_refuses_a_message_is_an_error(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(InputError, match="left out message 1"):
        ChatTokenizer(tmp_path).encode_chat([user("a"), user("b")])
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(InputError, match="no system role"):
        ChatTokenizer(tmp_path).encode_chat([user("a")])


def test_a_template_runs_in_a_sandbox(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}{{ messages[0]['content'] }}")
    with pytest.raises(InputError, match="chat template should accept"):
        ChatTokenizer(tmp_path).encode_chat([user("a")])


def test_special_tokens_may_be_objects_and_several_ends_are_kept(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "chat_template.jinja"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|end|>"}}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3]}))
    assert ChatTokenizer(tmp_path).end_ids == (3, 5)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ArtefactError, match="end-of-sequence"):
        ChatTokenizer(tmp_path)
