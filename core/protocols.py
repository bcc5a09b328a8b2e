"""What the lower folders need from the higher ones, handed in as arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Refusal = Literal["full", "partial", "none", "unclear"]


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one reply.

    Attributes:
        categories: names of the harm categories that the reply realises (empty: harmless).
        refusal: whether the reply declines.
        attributes: score in [0, 1] by attribute name; a judge may leave attributes out.
        success: whether the reply does what a benign request asked for; None if the judge cannot say.
        harmful_spans: character ranges of the reply that realise a harm, half open; reports redact them.
        error: why the reply could not be judged; such a reply is neither harmful nor harmless, refused nor answered.
    """

    categories: frozenset[str] = frozenset()
    refusal: Refusal = "unclear"
    attributes: Mapping[str, float] = field(default_factory=dict)
    success: bool | None = None
    harmful_spans: tuple[tuple[int, int], ...] = ()
    error: str | None = None

    def leak(self, allowed: frozenset[str] = frozenset()) -> bool | None:
        """Return whether the reply realises a harm that is not allowed; None where it could not be judged.

        Example:
            >>> harmful = Judgement(categories=frozenset({"violence"}))
            >>> harmful.leak(), harmful.leak(frozenset({"violence"})), Judgement(error="it timed out").leak()
            (True, False, None)
        """
        return None if self.error is not None else not self.categories <= allowed


class Judge(Protocol):
    """Scores replies. `name` and `version` go into every record that rests on its word."""

    name: str
    version: str

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply to a conversation."""
        ...
