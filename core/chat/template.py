"""The chat template of a model folder: where it is written, and what it renders."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import ArtefactError, InputError
from ..files import read_json
from ..protocols import Message
from .environment import BUDGET, TEMPLATE_FAILURES, Budget, ChatEnvironment, date_format
from .messages import sourced_messages
from .sourced_text import FIRST_MESSAGE, TEMPLATE, UNKNOWN, SourcedText

TEMPLATE_FILE = "chat_template.jinja"
NAMED_TEMPLATES = "additional_chat_templates"  # a folder
DEFAULT = "default"
MAX_TEMPLATE = 1_000_000  # characters


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: its text.
        tokens: text of each named special token, such as `bos_token`.

    Attributes:
        digest: hex SHA-256 of the source.

    Raises:
        ArtefactError: the source is not valid jinja.
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self.digest = hashlib.sha256(source.encode("utf-8")).hexdigest()
        self._variables = {name: SourcedText.of(text, TEMPLATE) for name, text in tokens.items()}
        if len(source) > MAX_TEMPLATE:
            raise ArtefactError(
                f"the chat template should have at most {MAX_TEMPLATE} characters, found {len(source)}: shorten it"
            )
        try:
            self._compiled = ChatEnvironment().from_string(source)
        except TEMPLATE_FAILURES as error:
            raise ArtefactError(f"the chat template should be valid jinja: {_reason(error)}; correct it") from None

    def render(
        self, messages: Sequence[Message], *, now: datetime | None = None, add_generation_prompt: bool = True
    ) -> SourcedText:
        """Return the rendering of checked messages; each character knows its source.

        Raises:
            InputError: the template does not accept the conversation, or does not end.
        """
        variables = self._variables | {
            "messages": sourced_messages(messages),
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": date_format(now or datetime.now()),
            BUDGET: Budget(),
        }
        try:
            return SourcedText(self._compiled.render(variables))
        except TEMPLATE_FAILURES as error:
            raise InputError(f"the chat template should accept this conversation: {_reason(error)}") from None


def left_out(messages: Sequence[Message], rendered: SourcedText) -> int | None:
    """Return the index of the first system or user message that a rendering leaves out, None if there is none.

    Templates may drop what an assistant said (its reasoning). Of a text without a source nobody can say what it is.
    """
    written = set(rendered.sources)
    if UNKNOWN in written:
        return None
    missing = (
        index
        for index, message in enumerate(messages)
        if message["role"] != "assistant" and message["content"].strip() and chr(FIRST_MESSAGE + index) not in written
    )
    return next(missing, None)


def template_source(folder: Path, config: Mapping[str, Any], name: str | None = None) -> str:
    """Return the text of a folder's chat template, from the files and in the order of transformers.

    Args:
        folder: the model folder.
        config: content of its tokenizer_config.json.
        name: which of several named templates; None for the default.

    Raises:
        ArtefactError: there is no template, none of this name, or several without a default.
    """
    named = _named_templates(folder, config)
    if not named:
        raise ArtefactError(f"{folder} should hold a chat template ({TEMPLATE_FILE}): there is none; add one")
    if (name or DEFAULT) not in named:
        raise ArtefactError(
            f"{folder} should hold a chat template named {name or DEFAULT!r}, found {', '.join(sorted(named))}: "
            "choose one by name"
        )
    return named[name or DEFAULT]


def _named_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    files = {path.stem: path for path in sorted((folder / NAMED_TEMPLATES).glob("*.jinja"))}
    if (folder / TEMPLATE_FILE).is_file():
        files[DEFAULT] = folder / TEMPLATE_FILE
    if files:
        return {name: _read_text(path) for name, path in files.items()}
    template = config.get("chat_template")
    if template is None and (folder / "chat_template.json").is_file():
        template = read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        rows = [row for row in template if isinstance(row, dict)]
        template = {row.get("name"): row.get("template") for row in rows}
    named = template if isinstance(template, dict) else {DEFAULT: template}
    return {name: text for name, text in named.items() if isinstance(name, str) and isinstance(text, str)}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path} should be UTF-8 text: {error}; save it as UTF-8") from None


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
