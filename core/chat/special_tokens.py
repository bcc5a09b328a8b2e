"""The named special tokens and added tokens of a tokenizer, from every file that transformers reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ..files import read_json

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA = ("extra_special_tokens", "additional_special_tokens")
MOST_IDS = 2**24  # no vocabulary of today has a sixteenth of it
TOKEN_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json; special_tokens_map.json overrides it where the config lists no added tokens.

    Raises:
        ArtefactError: one of the files is not a JSON object.
    """
    config = optional_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= optional_json(folder / "special_tokens_map.json")
    return config


def named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the text of each named token: the usual ones, and those that a model names itself.

    Examples:
        >>> named_tokens({"bos_token": {"content": "<s>"}, "image_token": "<image>", "eos_token": None})
        {'bos_token': '<s>', 'image_token': '<image>'}
    """
    extra = config.get(EXTRA[0])
    listed = {**config, **(extra if isinstance(extra, dict) else {})}
    texts = {name: token_text(value) for name, value in listed.items() if name.endswith("_token")}
    return {name: text for name, text in texts.items() if text is not None}


def tokens_to_add(config: Mapping[str, Any], folder: Path, present: Mapping[int, str]) -> list[AddedToken]:
    """Return the tokens that a tokenizer should have in addition to tokenizer.json, in transformers' order.

    Args:
        config: result of `tokenizer_config`.
        folder: the model folder.
        present: added tokens in tokenizer.json, by id. Those that the config lists with other flags take these.
    """
    named = [AddedToken(text, special=True) for text in named_tokens(config).values()]
    lists = [config.get(name) for name in EXTRA]
    extra = [_added(value, special=True) for values in lists if isinstance(values, list) for value in values]
    special = {token.content for token in (*named, *extra)}
    listed = config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        tokens = [
            _added(value, special=False) for _, value in sorted(listed.items(), key=lambda item: _number(item[0]))
        ]
    else:
        by_id = sorted(optional_json(folder / "added_tokens.json").items(), key=lambda item: _number(item[1]))
        tokens = [AddedToken(text, special=text in special) for text, index in by_id if index not in present]
    known = {*present.values(), *(token.content for token in tokens)}
    return [
        token for token in (*tokens, *(one for one in (*named, *extra) if one.content not in known)) if token.content
    ]


def _added(value: Any, *, special: bool) -> AddedToken:
    flags = value if isinstance(value, dict) else {}
    given = {name: bool(flags[name]) for name in TOKEN_FLAGS if name in flags}
    return AddedToken(token_text(value) or "", special=bool(flags.get("special", special)), **given)


def _number(value: object) -> int:
    return int(str(value)) if str(value).isdecimal() else 0


def token_text(value: object) -> str | None:
    """Return the text of a special token, which the files hold as a string or as `{"content": string}`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def optional_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if there is no such file."""
    return read_json(path) if path.is_file() else {}
