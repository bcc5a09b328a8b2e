"""Text to token ids, the same way for training, the reference and the runtime (torch-free).

A chat template is rendered with a marker in place of every message's content; the pieces around the markers are
encoded with added tokens enabled, the contents with all of them disabled, those that are not marked as special too, and
both are spliced. So no text that a user types becomes a control token, a role or a safety config. Templates run in
jinja2's immutable sandbox.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer

from .errors import ArtefactError, InputError
from .protocols import Message

ROLES = ("system", "user", "assistant")
# What a template can raise: jinja2's own errors, and those of the expressions in it.
TEMPLATE_FAILURES = (TemplateError, ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


class ChatTokenizer:
    """A tokenizer with its chat template, read from a model folder.

    Attributes:
        vocabulary_size: number of token ids, added tokens included.
        n_words: number of token ids without added tokens.
        end_ids: ids that end a reply.
        pad_id: id to fill a batch with (the first end id where the folder names none).
        template_digest: sha256 of the chat template.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtefactError(f"{folder} should hold tokenizer.json: there is none")
        self._tokenizer = _open_tokenizer(path)
        self._text_tokenizer = _text_tokenizer(self._tokenizer, path)
        config = _optional_json(folder / "tokenizer_config.json")
        self._special = {key: _token_text(config.get(key)) for key in ("bos_token", "eos_token", "pad_token")}
        self._control_ids = _control_ids(self._tokenizer, _token_text(config.get("unk_token")))
        template = _template_source(folder, config)
        self._template = _compile_template(template)
        self.template_digest = hashlib.sha256(template.encode("utf-8")).hexdigest()
        self.vocabulary_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.n_words: int = self._tokenizer.get_vocab_size(with_added_tokens=False)
        self.end_ids: tuple[int, ...] = self._end_ids(_optional_json(folder / "generation_config.json"))
        pad = self._special["pad_token"]
        pad_id = self._tokenizer.token_to_id(pad) if pad else None
        self.pad_id: int = self.end_ids[0] if pad_id is None else pad_id

    def encode_chat(self, messages: Sequence[Message], *, prefill: str = "") -> list[int]:
        """Return the ids of a conversation up to where the next reply starts, then those of `prefill`.

        Raises:
            InputError: a role is not system, user or assistant, or the folder has no chat template.
        """
        for message in messages:
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise InputError(f"a message should have a role of {ROLES} and a text content, found {message!r:.120}")
        ids: list[int] = []
        for piece in self._template_pieces(messages):
            if isinstance(piece, int):
                ids += self.encode_text(messages[piece]["content"])
            elif piece:
                ids += self._tokenizer.encode(piece, add_special_tokens=False).ids
        return ids + (self.encode_text(prefill) if prefill else [])

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of plain text: control tokens typed in it stay ordinary text.

        Raises:
            InputError: the tokenizer's model itself knows a control token as a word of the text.
        """
        return self.encode_with_offsets(text)[0]

    def vocabulary(self) -> dict[str, int]:
        """Return every token with its id, added tokens included."""
        found: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return found

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of plain text and, for each, the half-open range of characters that it stands for."""
        tokenizer = self._text_tokenizer
        tokenizer.encode_special_tokens = True
        try:
            encoding = tokenizer.encode(text, add_special_tokens=False)
        finally:
            tokenizer.encode_special_tokens = False
        typed = self._control_ids.intersection(encoding.ids)
        if typed:
            name = self._tokenizer.id_to_token(min(typed))
            raise InputError(
                f"a text should hold no control token, this tokenizer reads {name!r} in it as one: leave it out"
            )
        return list(encoding.ids), list(encoding.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _template_pieces(self, messages: Sequence[Message]) -> list[str | int]:
        """Render the template with markers; return its literal pieces and, as integers, the messages between them."""
        marker = secrets.token_hex(12)
        names = [f"<{marker}:{index}>" for index in range(len(messages))]
        stand_ins = [{**message, "content": name} for message, name in zip(messages, names, strict=True)]
        text = self._render(stand_ins)
        pieces: list[str | int] = []
        while True:
            found = [(text.find(name), index) for index, name in enumerate(names) if name in text]
            if not found:
                pieces.append(text)
                break
            at, index = min(found)
            pieces += [text[:at], index]
            text = text[at + len(names[index]) :]
        missing = set(range(len(messages))) - {piece for piece in pieces if isinstance(piece, int)}
        if missing:
            raise InputError(f"the chat template should place every message, it left out message {min(missing)}")
        return pieces

    def _render(self, messages: Sequence[Message]) -> str:
        special = {key: value or "" for key, value in self._special.items()}
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, **special)
        except TEMPLATE_FAILURES as error:
            raise InputError(
                f"the chat template should accept this conversation: {error or type(error).__name__}"
            ) from None

    def _end_ids(self, generation: dict[str, Any]) -> tuple[int, ...]:
        listed = generation.get("eos_token_id")
        ids = [listed] if isinstance(listed, int) else list(listed or [])
        eos = self._special["eos_token"]
        eos_id = self._tokenizer.token_to_id(eos) if eos else None
        if eos_id is not None and eos_id not in ids:
            ids.append(eos_id)
        if not ids:
            raise ArtefactError("the tokenizer should name an end-of-sequence token (eos_token): it names none")
        return tuple(ids)


def _open_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ArtefactError(f"{path} should be a tokenizer of the tokenizers library: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _text_tokenizer(tokenizer: Tokenizer, path: Path) -> Tokenizer:
    """Return a tokenizer in which every added token can be disabled, which the library does with special ones only.

    Added tokens of white space stay: they are how some models read ordinary text, and no control tokens.
    """
    added = [token for token in tokenizer.get_added_tokens_decoder().values() if token.content.strip()]
    if all(token.special for token in added):
        return tokenizer
    own = _open_tokenizer(path)  # as decoding leaves special tokens out, the other one cannot be changed
    own.add_special_tokens([AddedToken(token.content, special=True) for token in added])
    return own


def _control_ids(tokenizer: Tokenizer, unknown: str | None) -> frozenset[int]:
    """Return the ids that no text may become; that of unknown words may."""
    added = tokenizer.get_added_tokens_decoder().items()
    return frozenset(index for index, token in added if token.content.strip() and token.content != unknown)


def _compile_template(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_template_error
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ArtefactError(f"the chat template should be valid jinja: {error}") from None


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _token_text(value: object) -> str | None:
    """A special token stands in tokenizer_config.json as text or as an object with its text under `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _template_source(folder: Path, config: dict[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, str):
        return template
    raise ArtefactError(f"{folder} should hold a chat template (chat_template.jinja): there is none; add one")
