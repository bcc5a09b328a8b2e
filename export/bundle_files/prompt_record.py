"""Prompts as transformers encodes them, recorded at export and compared whenever a bundle is opened (torch-free)."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import ArtefactError, InputError, MissingExtraError
from prosocial.core.files import read_json
from prosocial.core.protocols import Message

SCHEMA = "prosocial.prompts/1"
PROMPT_RECORD = "prompts.json"
SYSTEM: Message = {"role": "system", "content": " You are a kind helper.\n"}
USER: Message = {"role": "user", "content": "How do I say no to a friend, politely?"}
REPLY: Message = {"role": "assistant", "content": "Say it kindly:\n\n- \u201cNot today.\u201d\n- Thank them  (smile)."}
SPACED: Message = {"role": "user", "content": "  \n And in the café, at 10:30?\n\n"}
CONVERSATIONS: tuple[list[Message], ...] = (
    [USER],
    [SPACED],
    [USER, REPLY, SPACED],
    [SYSTEM, USER],
    [SYSTEM, SPACED, REPLY, USER, REPLY, SPACED],
)


def record_prompts(folder: Path, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """Return harmless conversations with the token ids that transformers gives them; None for those that it refuses.

    Conversations with a system message are left out for a template that has no place for one.

    Args:
        folder: model folder of the tokenizer.
        tokenizer: our reading of it.

    Raises:
        ArtefactError: transformers cannot read the tokenizer, or its ids differ from ours.
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtraError("transformers", "train") from None
    try:
        reference: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # each tokenizer class has errors of its own
        raise ArtefactError(
            f"{folder} should hold a tokenizer that transformers can read: {' '.join(str(error).split()):.300}; save "
            "it again with save_pretrained"
        ) from None
    now, chosen = datetime.now(), conversations_for(tokenizer)
    rows = [{"messages": messages, "token_ids": _reference_ids(reference, messages)} for messages in chosen]
    record = {"schema": SCHEMA, "recorded": now.isoformat(timespec="seconds"), "prompts": rows}
    check_prompts(tokenizer, record, source=str(folder))
    return record


def conversations_for(tokenizer: ChatTokenizer) -> list[list[Message]]:
    """Return the conversations that are recorded for a tokenizer."""
    return [one for one in CONVERSATIONS if tokenizer.takes_system or one[0]["role"] != "system"]


def check_prompts(tokenizer: ChatTokenizer, record: Mapping[str, Any], *, source: str) -> None:
    """Check that a tokenizer encodes recorded conversations to the recorded token ids.

    Raises:
        ArtefactError: the ids differ, or the record is not one.
    """
    try:
        now = datetime.fromisoformat(record["recorded"])
        rows = [(row["messages"], row["token_ids"]) for row in record["prompts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{source} should hold recorded prompts: {error!r}; export it again") from None
    for number, (messages, expected) in enumerate(rows, start=1):
        try:
            actual = tokenizer.encode_chat(messages, now=now)
        except InputError as error:
            if expected is None:
                continue
            raise ArtefactError(f"{source} should accept prompt {number} as transformers does: {error}") from None
        if actual != expected:
            raise ArtefactError(
                f"{source} should encode prompt {number} of {len(rows)} as transformers does, "
                f"{_difference(expected, actual)}: save the tokenizer again with transformers, and report the template"
            )


def check_recorded_prompts(folder: Path, tokenizer: ChatTokenizer) -> None:
    """Check the tokenizer of a bundle against its recorded prompts; early versions recorded none.

    Raises:
        ArtefactError: see `check_prompts`.
    """
    if (folder / PROMPT_RECORD).is_file():
        check_prompts(tokenizer, read_json(folder / PROMPT_RECORD, schema=SCHEMA), source=str(folder))


def _reference_ids(reference: Any, messages: list[Message]) -> list[int] | None:
    try:
        ids = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    except Exception:  # a template refuses with whatever its expressions raise
        return None
    return [int(index) for index in ids]


def _difference(expected: list[int] | None, actual: list[int]) -> str:
    if expected is None:
        return "but it refuses that one"
    pairs = enumerate(zip(expected, actual, strict=False))
    at = next((at for at, (left, right) in pairs if left != right), min(len(expected), len(actual)))
    return f"but from position {at} on the ids differ ({len(actual)} ids instead of {len(expected)})"
