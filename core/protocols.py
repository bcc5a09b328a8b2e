"""Interfaces that lower folders use and higher folders implement; the objects are passed as arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Refusal = Literal["full", "partial", "none", "unclear"]


@dataclass(frozen=True)
class Judgement:
    """A judge's assessment of one reply.

    Attributes:
        categories: names of the harm categories that the reply falls into (empty: harmless).
        refusal: how far the reply refuses the request.
        attributes: score in [0, 1] by attribute name; a judge may leave attributes out.
        success: whether the reply does what a benign request wants; None if the judge cannot say.
        harmful_spans: character ranges of the harmful parts of the reply, half open; reports redact them.
        error: why the reply could not be judged; None if it was judged. A reply with an error counts neither as harmful
            nor as harmless, neither as refused nor as answered.
    """

    categories: frozenset[str] = frozenset()
    refusal: Refusal = "unclear"
    attributes: Mapping[str, float] = field(default_factory=dict)
    success: bool | None = None
    harmful_spans: tuple[tuple[int, int], ...] = ()
    error: str | None = None

    def leak(self, allowed: frozenset[str] = frozenset()) -> bool | None:
        """Return whether the reply falls into a harm category that is not allowed; None if it could not be judged.

        Examples:
            >>> harmful = Judgement(categories=frozenset({"violence"}))
            >>> harmful.leak(), harmful.leak(frozenset({"violence"})), Judgement(error="it timed out").leak()
            (True, False, None)
        """
        return None if self.error is not None else not self.categories <= allowed


class Judge(Protocol):
    """Scores replies.

    Attributes:
        name: name of the judge, written into every record of its judgements.
        version: version of the judge, written there too.
    """

    name: str
    version: str

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply to a conversation."""
        ...


class PromptEncoder(Protocol):
    """Encodes conversations and texts; `ChatTokenizer` is one.

    Attributes:
        end_ids: token ids that end a reply.
    """

    end_ids: tuple[int, ...]

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a conversation up to where the next reply starts."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of plain text."""
        ...
