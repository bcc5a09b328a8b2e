"""Text to token ids, with one implementation for training, the reference model and the runtime (torch-free).

The chat template is rendered with a marker in place of the content of each message. The text around the markers is
encoded with added tokens enabled; the contents are encoded with all added tokens disabled, including those that are not
marked as special. The two are then joined. This way no text that a user types can become a control token, a role or a
safety config. Templates run in jinja2's immutable sandbox.
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
# What rendering a template can raise: jinja2's own errors, and the errors of the expressions inside the template.
TEMPLATE_FAILURES = (TemplateError, ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


class ChatTokenizer:
    """A tokenizer with its chat template, read from a model folder.

    Attributes:
        vocabulary_size: number of token ids, including added tokens.
        n_words: number of token ids without added tokens.
        end_ids: token ids that end a reply.
        pad_id: token id to pad batches with; the first end id if the folder names no padding token.
        template_digest: hex SHA-256 of the chat template.

    Raises:
        ArtefactError: the folder has no tokenizer.json, no valid chat template or no end-of-sequence token.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtefactError(f"{folder} should hold tokenizer.json: there is none; save the tokenizer there")
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
        """Return the token ids of a conversation up to where the next reply starts, followed by those of `prefill`.

        Args:
            messages: the conversation.
            prefill: text that the reply starts with.

        Raises:
            InputError: a role is not system, user or assistant, the chat template does not accept the conversation, or
                a text holds a control token (see `encode_text`).
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
        """Return the token ids of plain text; control tokens typed in the text are encoded as ordinary text.

        Raises:
            InputError: the text would still give a control token, because it is in the tokenizer's base vocabulary.
        """
        return self.encode_with_offsets(text)[0]

    def vocabulary(self) -> dict[str, int]:
        """Return the id of each token, including added tokens."""
        ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids of plain text and the range of characters (half open) of each token.

        Raises:
            InputError: see `encode_text`.
        """
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
                f"a text should hold no control token, found {name!r}, which this tokenizer cannot encode as plain "
                "text: remove it"
            )
        return list(encoding.ids), list(encoding.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _template_pieces(self, messages: Sequence[Message]) -> list[str | int]:
        """Return the rendered template as a list of literal texts and, as integers, indices of the messages between."""
        marker = secrets.token_hex(12)
        names = [f"<{marker}:{index}>" for index in range(len(messages))]
        stand_ins = [{**message, "content": name} for message, name in zip(messages, names, strict=True)]
        text = self._render(stand_ins)
        pieces: list[str | int] = []
        while True:
            places = [(text.find(name), index) for index, name in enumerate(names) if name in text]
            if not places:
                pieces.append(text)
                break
            at, index = min(places)
            pieces += [text[:at], index]
            text = text[at + len(names[index]) :]
        missing = set(range(len(messages))) - {piece for piece in pieces if isinstance(piece, int)}
        if missing:
            raise InputError(
                f"the chat template should render every message, it left out message {min(missing)} "
                f"({messages[min(missing)]['role']}): use roles that the template supports"
            )
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
            raise ArtefactError(
                "the tokenizer should name an end-of-sequence token, found none: set eos_token in tokenizer_config.json"
            )
        return tuple(ids)


def _open_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower type
        raise ArtefactError(
            f"{path} should be a tokenizer of the tokenizers library: {error}; download or save it again"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _text_tokenizer(tokenizer: Tokenizer, path: Path) -> Tokenizer:
    """Return a tokenizer whose added tokens are all special, because the library can disable special tokens only.

    Added tokens of white space stay as they are: some models use them for ordinary text, and they control nothing.
    """
    added = [token for token in tokenizer.get_added_tokens_decoder().values() if token.content.strip()]
    if all(token.special for token in added):
        return tokenizer
    own = _open_tokenizer(path)  # a second object: `decode` of the first one must not drop these tokens as special
    own.add_special_tokens([AddedToken(token.content, special=True) for token in added])
    return own


def _control_ids(tokenizer: Tokenizer, unknown: str | None) -> frozenset[int]:
    """Return the ids that plain text must never be encoded to: all added tokens except the unknown-word token."""
    added = tokenizer.get_added_tokens_decoder().items()
    return frozenset(index for index, token in added if token.content.strip() and token.content != unknown)


def _compile_template(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_template_error
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ArtefactError(f"the chat template should be valid jinja: {error}; correct it") from None


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _token_text(value: object) -> str | None:
    """Return the text of a special token, which tokenizer_config.json holds as a string or as `{"content": string}`."""
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
