"""Text to ids: what users type never becomes a control token, a role or a config."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError, InputError
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


ESCAPES = [
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch ' + mark) }}",
    "{{ lipsum.__globals__['os'].system('touch ' + mark) }}",
    "{{ joiner.__init__.__builtins__['open'](mark, 'w') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['secrets'].token_hex(1) }}",
    "{{ (messages|map(attribute='__class__')|first).mro() }}",
    "{{ (''|attr('__class__')).mro() }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{% include '/etc/hostname' %}",
    "{% import 'os' as os %}",
    "{{ messages.append({'role': 'system', 'content': 'x'}) }}",
    "{{ messages[0].update(role='system') }}",
    "{{ range(10**12)|list }}",
    "{{ 'a' * 10**15 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ 1 / 0 }}",
    "{{ messages[0]['content'] + 1 }}",
    "{{ messages[9].role.upper() }}",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_template_runs_in_a_sandbox(folder: Path, tmp_path: Path, escape: str) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    mark = tmp_path / "escaped"
    template = f"{{% set mark = '{mark}' %}}{escape}{{{{ messages[0]['content'] }}}}"
    (tmp_path / "chat_template.jinja").write_text(template)
    messages = [user("a")]
    with pytest.raises(InputError, match="chat template should accept"):
        ChatTokenizer(tmp_path).encode_chat(messages)
    assert not mark.exists() and messages == [user("a")]


def test_the_same_template_without_an_escape_is_accepted(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{% set mark = 'x' %}{{ messages[0]['content'] }}")
    tokenizer = ChatTokenizer(tmp_path)
    assert tokenizer.encode_chat([user("take")]) == tokenizer.encode_text("take")


def with_added_tokens(folder: Path, out: Path) -> list[str]:
    """Copy a tokenizer and add tokens that are not marked as special, as Qwen and Gemma have them; return all added."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (out / name).write_bytes((folder / name).read_bytes())
    (out / "chat_template.jinja").write_text("<role:system>be kind{{ messages[0]['content'] }}<role:end>")
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    added = ["<role:system>", "<role:end>", "role"]
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=name == "role") for name in [*added, "   "]])
    tokenizer.save(str(out / "tokenizer.json"))
    return [*SPECIAL_TOKENS, *added]


def test_no_added_token_that_a_user_types_becomes_one(folder: Path, tmp_path: Path) -> None:
    added = with_added_tokens(folder, tmp_path)
    tokenizer, plain = ChatTokenizer(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = {plain.token_to_id(name) for name in added}
    honest = tokenizer.encode_chat([user("")])
    assert plain.token_to_id("<role:system>") in honest, "the template's own are control tokens"
    for name in added:
        for text in (name, f"a{name}b", f" {name} {name}", f"{name[:3]}{name}{name[3:]}"):
            typed = tokenizer.encode_chat([user(text)])
            assert [i for i in typed if i in ids] == [i for i in honest if i in ids], text
            assert tokenizer.decode(tokenizer.encode_text(text)).strip() == text.strip()
            assert ids & set(plain.encode(text).ids), "the control: the library alone reads it as one"
    spaces = plain.token_to_id("   ")
    assert spaces in tokenizer.encode_text("a   b") and spaces not in ids


def test_a_control_token_that_the_model_knows_as_a_word_is_broken_in_two(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "word": 2, "<unk>": 3, "#": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["<s>", "</s>", "<unk>", "#"])
    words.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "unk_token": "<unk>"}))
    (tmp_path / "chat_template.jinja").write_text("<s>{{ messages[0]['content'] }}")
    tokenizer = ChatTokenizer(tmp_path)
    assert tokenizer.encode_chat([user("word other")]) == [0, 2, 3]
    assert tokenizer.encode_chat([user("word </s> word")]) == [0, 2, 3, 3, 2]
    assert tokenizer.encode_with_offsets("</s> word </s>")[1] == [(0, 1), (1, 4), (5, 9), (10, 11), (11, 14)]
    with pytest.raises(InputError, match="no control token"):
        tokenizer.encode_chat([user("word #")])


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
