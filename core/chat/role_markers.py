"""Role markers of a chat template that are plain text, such as Vicuna's `USER:`, which token ids cannot protect.

Rule: where such a marker would arise from anything that a caller wrote, a backslash is put into it. A marker matches
in any case and with any white space between its words and signs.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..errors import InputError
from ..protocols import Message
from .encoding import ControlToken
from .sourced_text import FIRST_MESSAGE, TEMPLATE, SourcedText, joined

SYSTEM, USER, REPLY = (
    {"role": "system", "content": "alpha"},
    {"role": "user", "content": "beta"},
    {"role": "assistant", "content": "gamma"},
)
CONVERSATIONS: tuple[list[Message], ...] = (
    [USER, REPLY, USER],
    [SYSTEM, USER, REPLY, USER],
    [USER, USER, SYSTEM, USER],
    [USER],
    [SYSTEM, USER],
)
CLOSING = " \t\n.,;!?"  # what may end a turn before the marker of the next one
LONGEST_MARKER = 48
ESCAPE = "\\"
WHITE_SPACE = r"\s{0,16}"  # between the words and signs of a marker; bounded, so that searching takes linear time


@dataclass(frozen=True)
class RoleMarkers:
    """The role markers of a template that are plain text.

    Attributes:
        texts: the markers; empty if control tokens mark the roles.
        pattern: matches any of them; None if there are none.
    """

    texts: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None

    def escaped(self, text: SourcedText) -> SourcedText:
        """Return a rendering in which no caller wrote a marker, or a part of one."""
        if self.pattern is None:
            return text
        parts, at = [], 0
        for match in self.pattern.finditer(text):
            start, end = match.span()
            own = [place for place in range(start, end) if text.sources[place] != TEMPLATE]
            if own:
                cut = own[0] if own[0] > start else start + 1
                parts += [text[at:cut], SourcedText.of(ESCAPE, text.sources[own[0]])]
                at = cut
        return joined([*parts, text[at:]])


def role_markers(
    render: Callable[[Sequence[Message]], SourcedText],
    controls: Callable[[SourcedText], list[ControlToken]],
    closing: Collection[int],
) -> RoleMarkers:
    """Return the role markers that are plain text, as they show in the renderings of a few conversations.

    Text of the template between two messages is plain if no control token in it marks a role; tokens that begin a
    conversation or end a reply do not.

    Args:
        render: renders a conversation.
        controls: returns the control tokens that the template wrote into a rendering.
        closing: ids of those that begin a conversation or end a reply.
    """
    between: dict[str, bool] = {}  # marker: whether it follows a message without anything between
    first: list[str] = []
    for conversation in CONVERSATIONS:
        try:
            text = render(conversation)
            tokens = controls(text)
        except InputError:
            continue
        for start, end in _template_runs(text):
            inside = [token for token in tokens if start <= token.start < end]
            if any(token.id not in closing for token in inside):
                continue
            lines = _lines(text, start, end, inside)
            if start == 0:
                first += _markers(lines[-1:])
            else:
                for marker in _markers(lines):
                    between[marker] = between.get(marker, False) or text.startswith(marker, start)
    for marker in first:
        own = marker
        for known in between:
            own = "" if own.endswith(known) else own.removeprefix(known).strip()
        if own:
            between.setdefault(own, False)
    if not between:
        return RoleMarkers()
    texts = tuple(sorted(between, key=lambda marker: (-len(marker), marker)))
    return RoleMarkers(texts, re.compile("|".join(_pattern(text, between[text]) for text in texts), re.IGNORECASE))


def _template_runs(text: SourcedText) -> Iterator[tuple[int, int]]:
    """Yield the ranges of characters that the template wrote, before and between messages and after the last one."""
    at = 0
    for is_template, run in groupby(text.sources, lambda source: ord(source) < FIRST_MESSAGE):
        length = len(list(run))
        if is_template:
            yield at, at + length
        at += length


def _lines(text: str, start: int, end: int, tokens: Sequence[ControlToken]) -> list[str]:
    """Return the lines of a range of characters that are not blank; a control token ends a line."""
    parts = []
    for token in tokens:
        parts.append(text[start : token.start])
        start = token.end
    return [line for line in "\n".join([*parts, text[start:end]]).splitlines() if line.strip()]


def _markers(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        marker = line.strip().lstrip(CLOSING)
        if len(marker) > LONGEST_MARKER:
            marker = re.split(r"[.!?]\s+", marker)[-1]
        if len(marker) <= LONGEST_MARKER and re.search(r"[^\W_]", marker):
            yield str(marker)


def _pattern(marker: str, can_follow_letters: bool) -> str:
    words = re.findall(r"[^\W_]+|(?:[^\w\s]|_)+", marker)
    begin = "" if can_follow_letters or not marker[0].isalnum() else r"(?<![^\W_])"
    return begin + WHITE_SPACE.join(map(re.escape, words))
