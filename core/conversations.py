"""Lists of messages from other people's data, in one form: role and content, both text (torch-free)."""

from collections.abc import Mapping

from .errors import InputError
from .protocols import Message

ROLES = {  # the roles of OpenAI's format and of ShareGPT's
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
KEYS = (("role", "content"), ("from", "value"))
# Chat templates may write these into the prompt: to leave them out would change the conversation.
NOT_READ = ("function_call", "name", "reasoning_content", "thinking", "tool_call_id", "tool_calls")


def conversation_of(value: object, *, where: str) -> tuple[Message, ...]:
    """Return a list of messages in the form `{"role": ..., "content": ...}`.

    Messages may have the keys of OpenAI (`role`, `content`) or of ShareGPT (`from`, `value`). A content may be a list
    of text parts (`{"type": "text", "text": ...}`), which are joined. Further keys of a message that no chat template
    writes are ignored.

    Args:
        value: the list.
        where: where it is from, such as file and row, for the message.

    Raises:
        InputError: it is not a list of messages with a role of system, user or assistant and a text, or a message has
            a name, tool calls or a separate reasoning.

    Examples:
        >>> conversation_of([{"from": "human", "value": "Hello"}], where="row 1")
        ({'role': 'user', 'content': 'Hello'},)
    """
    if not isinstance(value, list) or not value:
        raise InputError(f"{where} should be a list with at least one message, found {value!r:.80}")
    return tuple(_message(each, where=f"{where}[{at}]") for at, each in enumerate(value))


def _message(value: object, *, where: str) -> Message:
    keys = next((keys for keys in KEYS if isinstance(value, dict) and set(keys) <= value.keys()), None)
    if keys is None or not isinstance(value, dict):
        raise InputError(f"{where} should be a message with role and content, found {value!r:.80}")
    role = ROLES.get(value[keys[0]]) if isinstance(value[keys[0]], str) else None
    if role is None:
        raise InputError(f"{where} should have a role of {', '.join(ROLES)}, found {value[keys[0]]!r:.40}")
    unread = [key for key in NOT_READ if value.get(key)]
    if unread:
        raise InputError(f"{where} should have a role and a content only, found {unread[0]}: remove it or the row")
    return {"role": role, "content": _text(value[keys[1]], where=where)}


def _text(content: object, *, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content and all(_is_text_part(part) for part in content):
        return "".join(part["text"] for part in content)
    raise InputError(f"{where} should have a text as its content, found {content!r:.80}")


def _is_text_part(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def split_reply(conversation: tuple[Message, ...], *, where: str) -> tuple[tuple[Message, ...], str]:
    """Return the messages before the last one, and the text of the last one, which must be of the assistant.

    Raises:
        InputError: the last message is not of the assistant, or there is none before it.

    Examples:
        >>> split_reply(({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}), where="row 1")
        (({'role': 'user', 'content': 'Hi'},), 'Hello')
    """
    *before, last = conversation
    if last["role"] != "assistant":
        raise InputError(f"{where} should end in a message of the assistant, found {last['role']}")
    if not before:
        raise InputError(f"{where} should hold the conversation before the reply too, found the reply only: add it")
    return tuple(before), last["content"]
