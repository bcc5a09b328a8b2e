"""Conversations and texts to token ids, with one implementation for training, the reference model and the runtime.

The ids are those of transformers' `apply_chat_template`, with one difference: what a caller writes never becomes a
control token, a role or a safety config. Each character of a rendering knows whether the template wrote it
(`SourcedText`), and only characters of the template become control tokens (`SourcedEncoder`). Role markers that are
plain text are kept apart by a backslash (`RoleMarkers`). Templates run in jinja2's immutable sandbox, with bounds.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..contents import read_as
from ..errors import ArtefactError, InputError
from ..gguf_files import convert_first, find_gguf
from ..protocols import Message
from .encoding import Offsets, SourcedEncoder
from .end_ids import end_ids
from .messages import require_messages, require_text
from .role_markers import SYSTEM, USER, RoleMarkers, role_markers
from .sourced_text import FIRST_MESSAGE, SourcedText, joined
from .special_tokens import named_tokens, tokenizer_config
from .template import ChatTemplate, left_out, template_source

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)


class ChatTokenizer:
    """A tokenizer with its chat template, read from a model folder; threads can share it.

    Args:
        folder: the model folder.
        template: name of the chat template if the folder has several; None for the default.

    Attributes:
        vocabulary_size: number of token ids, including added tokens.
        n_words: number of token ids without added tokens.
        end_ids: token ids that end a reply.
        longest_token: number of characters of the longest token.
        pad_id: token id to pad batches with; the first end id if the folder names no padding token.
        template_digest: hex SHA-256 of the chat template.
        takes_system: whether the template has a place for a system message. If it has none, a system message at the
            start goes into the first user message, before its text and a blank line.
        role_markers: role markers of the template that are plain text; a backslash is put into those that a caller
            writes.

    Raises:
        ArtefactError: the folder has no tokenizer.json, no valid chat template or no end-of-sequence token.
    """

    def __init__(self, folder: Path | str, *, template: str | None = None) -> None:
        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            gguf = find_gguf(folder)
            remedy = f"found {convert_first(gguf)}" if gguf else "there is none; save the tokenizer there"
            raise ArtefactError(f"{folder} should hold tokenizer.json: {remedy}")
        config = tokenizer_config(folder)
        named = named_tokens(config)
        with read_as("a tokenizer of the tokenizers library", folder / "tokenizer.json"):
            self._encoder = SourcedEncoder(folder, config)
        self._tokenizer = self._encoder.tokenizer
        self._template = ChatTemplate(template_source(folder, config, template), named)
        self.template_digest = self._template.digest
        self.vocabulary_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.n_words: int = self._tokenizer.get_vocab_size(with_added_tokens=False)
        self.longest_token: int = max(map(len, self._tokenizer.get_vocab(with_added_tokens=True)))
        self.end_ids: tuple[int, ...] = end_ids(folder, self._tokenizer, named.get("eos_token"))
        if not self.end_ids:
            raise ArtefactError(
                "the tokenizer should name an end-of-sequence token, found none: set eos_token in tokenizer_config.json"
            )
        named_ids = {name: self._tokenizer.token_to_id(text) for name, text in named.items()}
        pad_id = named_ids.get("pad_token")
        self.pad_id: int = self.end_ids[0] if pad_id is None else pad_id
        closing = {*self.end_ids, *(index for index in (named_ids.get("bos_token"), pad_id) if index is not None)}
        alone, below_system = self._tried([USER]), self._tried([SYSTEM, USER])
        self.takes_system: bool = alone is None or (
            below_system is not None and left_out([SYSTEM, USER], below_system) is None
        )
        self._markers = RoleMarkers()
        if alone is not None or below_system is not None:
            self._markers = role_markers(self._template.render, self._encoder.control_tokens, closing)
        self.role_markers: tuple[str, ...] = self._markers.texts

    def encode_chat(self, messages: Sequence[Message], *, prefill: str = "", now: datetime | None = None) -> list[int]:
        """Return the token ids of a conversation up to where the next reply starts, followed by those of `prefill`.

        Args:
            messages: the conversation. Other keys of a message than role and content are data for the template.
            prefill: text that the reply starts with.
            now: the time for templates that write a date; None for the present.

        Raises:
            InputError: a role is not system, user or assistant, the chat template does not accept the conversation, or
                a text is too long or no valid Unicode, or holds a control token that is also a word.
        """
        require_messages(messages)
        require_text(prefill)
        messages = messages if self.takes_system else _without_system(messages)
        rendered = self._template.render(messages, now=now)
        missing = left_out(messages, rendered)
        if missing is not None:
            raise InputError(
                f"the chat template should render every message, it left out message {missing} "
                f"({messages[missing]['role']}): use roles that the template supports"
            )
        start = SourcedText.of(prefill, chr(FIRST_MESSAGE + len(messages)))
        return self._encoder.encode(self._markers.escaped(joined([rendered, start])))

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of plain text; control tokens typed in the text are encoded as ordinary text.

        Raises:
            InputError: the text would still give a control token, because it is one word of the tokenizer's vocabulary.
        """
        return self.encode_with_offsets(text)[0]

    def encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
        """Return the token ids of plain text and the range of characters (half open) of each token.

        Raises:
            InputError: see `encode_text`.
        """
        require_text(text)
        return self._encoder.encode_text(text)

    def vocabulary(self) -> dict[str, int]:
        """Return the id of each token, including added tokens."""
        ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _tried(self, messages: Sequence[Message]) -> SourcedText | None:
        """Return the rendering of a conversation, None if the template refuses it."""
        try:
            return self._template.render(messages)
        except InputError:
            return None


def _without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the conversation with a system message at its start moved into the first user message."""
    if not messages or messages[0]["role"] != "system":
        return messages
    text, rest = messages[0]["content"], list(messages[1:])
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{text}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": text}, *rest]
