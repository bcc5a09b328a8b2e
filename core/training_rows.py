"""Training rows in the formats of this package, of TRL and of ShareGPT: prompts, replies and pairs (torch-free).

| a row of | keys |
|---|---|
| a prompt | `prompt` (a text is one user message, else a list of messages), `messages`, or `conversations` |
| a reply | a prompt with `reply` or `completion`; or `messages` or `conversations` that end in the reply |
| a pair | a prompt with `first` and `second`, or `chosen` and `rejected`; or two whole conversations there |

A reply is a text, or a list with messages of the assistant. A text in `system` begins a conversation that has no system
message. Keys with the value null, and other keys, are ignored.
"""

import re
from collections.abc import Mapping
from typing import Any

from .conversations import conversation_of, split_reply
from .errors import InputError
from .protocols import Message

Conversation = tuple[Message, ...]
Row = Mapping[str, Any]
LISTS = ("messages", "conversations")
REPLIES = ("reply", "completion")
PAIRS = (("first", "second"), ("chosen", "rejected"))
TEXTS = ("prompt", *REPLIES, *(key for pair in PAIRS for key in pair))
NOT_READ = ("tools", "images", "videos", "audios", "chat_template_kwargs")  # columns that change what a model is shown
WRITTEN_LIST = re.compile(r"\s*\[\s*\{\s*['\"](role|content|from|value)['\"]\s*:")  # messages as JSON or by Python


def prompt_of(row: Row, *, where: str) -> Conversation:
    """Return the conversation that a row asks for a reply to.

    Raises:
        InputError: the row has none, or it does not end in a message of the user.

    Examples:
        >>> prompt_of({"prompt": "Hello"}, where="row 1")
        ({'role': 'user', 'content': 'Hello'},)
    """
    row = _checked(row, where=where)
    listed = _listed(row, where=where)
    conversation = listed if listed and listed[-1]["role"] == "user" else _prompt(row, where=where) or listed
    if not conversation:
        raise InputError(f"{where} should hold a prompt (text) or messages (a list), found the keys {sorted(row)}")
    if conversation[-1]["role"] != "user":
        raise InputError(
            f"{where} should hold a conversation that ends in a message of the user, found {conversation[-1]['role']}"
        )
    return _under_system(row, conversation, where=where)


def reply_of(row: Row, *, where: str) -> tuple[Conversation, str]:
    """Return the conversation of a row and the reply to it; of several replies in a conversation, it is the last one.

    Raises:
        InputError: the row has no reply, or is in no format that the table above lists.

    Examples:
        >>> reply_of({"prompt": "Hello", "completion": "Hi!"}, where="row 1")[1]
        'Hi!'
    """
    row = _checked(row, where=where)
    if row.get("label") in (True, False):  # or 1 and 0
        raise InputError(f"{where} should hold a reply to learn, found an unpaired preference (label): remove the key")
    for key in REPLIES:
        if key in row:
            return _continued(row, key, where=where)
    listed = _listed(row, where=where)
    if listed:
        return split_reply(_under_system(row, listed, where=where), where=f"{where}: {_list_key(row)}")
    raise InputError(
        f"{where} should hold a reply (reply, completion, or messages that end in one), found the keys {sorted(row)}"
    )


def pair_of(row: Row, *, where: str) -> tuple[Conversation, str, str]:
    """Return the conversation of a row and two replies to it; `chosen` comes before `rejected`.

    Raises:
        InputError: a reply is missing, both are equal, they reply to different conversations, or the row is in no
            format that the table above lists.

    Examples:
        >>> pair_of({"prompt": "Hello", "chosen": "Hi!", "rejected": "What?"}, where="row 1")[1:]
        ('Hi!', 'What?')
    """
    row = _checked(row, where=where)
    keys = next((keys for keys in PAIRS if any(key in row for key in keys)), None)
    missing = [key for key in keys or () if key not in row]
    if keys is None or missing:
        raise InputError(
            f"{where} should have the keys first and second, or chosen and rejected: "
            f"missing {', '.join(missing) or 'both'}, found the keys {sorted(row)}"
        )
    (conversation, first), (other, second) = (_continued(row, key, where=where) for key in keys)
    if conversation != other:
        raise InputError(f"{where} should have two replies to one conversation, {' and '.join(keys)} reply to two")
    if first == second:
        raise InputError(f"{where} should have two different replies, found {first!r:.60} twice: remove the row")
    return conversation, first, second


def _checked(row: Row, *, where: str) -> dict[str, Any]:
    """Return a row without the keys that are null; refuse a row with what no reader of this package shows a model."""
    given = {key: value for key, value in row.items() if value is not None}
    unread = [key for key in NOT_READ if given.get(key)]
    if unread:
        raise InputError(f"{where} should hold text only, found {unread[0]}: remove the key or the row")
    written = [key for key in TEXTS if isinstance(given.get(key), str) and WRITTEN_LIST.match(given[key])]
    if written:
        raise InputError(
            f"{where}: {written[0]} should be a text or a list of messages, found a list written as a text: parse it"
        )
    return given


def _continued(row: dict[str, Any], key: str, *, where: str) -> tuple[Conversation, str]:
    """Return the conversation and the reply of a key: a text, messages of the assistant, or a whole conversation."""
    value = row[key]
    if isinstance(value, str):
        return prompt_of(row, where=where), value
    if not isinstance(value, list):
        raise InputError(f"{where}: {key} should be a text or a list of messages, found {value!r:.80}")
    turns = conversation_of(value, where=f"{where}: {key}")
    if turns[0]["role"] == "assistant":
        return split_reply((*prompt_of(row, where=where), *turns), where=f"{where}: {key}")
    _require_same_prompt(row, turns, where=f"{where}: {key}")
    return split_reply(_under_system(row, turns, where=where), where=f"{where}: {key}")


def _require_same_prompt(row: dict[str, Any], turns: Conversation, *, where: str) -> None:
    """Refuse a whole conversation whose start contradicts the prompt of its row."""
    prompt = _prompt(row, where=where)
    is_text = isinstance(row.get("prompt"), str)
    said = [turn["content"].strip() for turn in turns if turn["role"] == "user"]
    if prompt and not (prompt[-1]["content"].strip() in said if is_text else turns[: len(prompt)] == prompt):
        raise InputError(f"{where} should continue the prompt of its row, it is another conversation: correct it")


def _prompt(row: dict[str, Any], *, where: str) -> Conversation:
    """Return the conversation of the key `prompt`, empty without the key."""
    value = row.get("prompt", ())
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    return conversation_of(value, where=f"{where}: prompt") if value != () else ()


def _listed(row: dict[str, Any], *, where: str) -> Conversation:
    """Return the conversation of `messages` or `conversations`, empty without them."""
    key = _list_key(row)
    return conversation_of(row[key], where=f"{where}: {key}") if key else ()


def _under_system(row: dict[str, Any], turns: Conversation, *, where: str) -> Conversation:
    """Return a conversation with the text of the key `system` in front, unless it has a system message."""
    system = row.get("system")
    if not system or turns[0]["role"] == "system":
        return turns
    if not isinstance(system, str):
        raise InputError(f"{where}: system should be a text, found {system!r:.80}")
    return ({"role": "system", "content": system}, *turns)


def _list_key(row: dict[str, Any]) -> str | None:
    return next((key for key in LISTS if key in row), None)
