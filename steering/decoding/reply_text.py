"""The text of a reply as it grows: which token a forbidden phrase or a stop string begins in (torch-free)."""

from collections.abc import Sequence
from dataclasses import dataclass

from prosocial.core.chat import ChatTokenizer

from .phrases import PhraseFinder, folded

INCOMPLETE = "\ufffd"  # what a character decodes to while some of its bytes are still missing


@dataclass(frozen=True)
class Finding:
    """What the text says after one more token.

    Attributes:
        phrase_token: the first token of a forbidden phrase; None: there is none.
        cut: where in the text a stop string begins; None: there is none.
        open_token: the first token whose text could still become part of a phrase, a stop string or a character; the
            number of tokens where there is none.
    """

    phrase_token: int | None
    cut: int | None
    open_token: int


class ReplyText:
    """Reads the tokens of one reply as text; phrases that span tokens are found as well.

    Args:
        tokenizer: of the model. phrases: of `folded` texts. stops: of stop strings as they are.
    """

    def __init__(self, tokenizer: ChatTokenizer, phrases: PhraseFinder, stops: PhraseFinder) -> None:
        self._tokenizer, self._phrases, self._stops = tokenizer, phrases, stops
        self._ends: list[tuple[int, int]] = []  # characters of the text and of the folded text after each token

    def read(self, tokens: Sequence[int]) -> Finding:
        """Say what one more token brought; all before it but those taken back were read already."""
        del self._ends[len(tokens) - 1 :]
        text_read, folded_read = self._ends[-1] if self._ends else (0, 0)
        text = self._tokenizer.decode(tokens)
        seen = folded(text) if self._phrases.longest else ""
        self._ends.append((len(text), len(seen)))
        phrase = self._phrases.find(seen, searched=folded_read)
        open_text = min(self._stops.open_from(text), len(text.rstrip(INCOMPLETE)))
        return Finding(
            None if phrase is None else self._token_at(phrase, 1),
            self._stops.find(text, searched=text_read),
            min(self._token_at(open_text, 0), self._token_at(self._phrases.open_from(seen), 1)),
        )

    def _token_at(self, position: int, kind: int) -> int:
        """Return the token that the character at a position came with."""
        at = len(self._ends)
        while at and self._ends[at - 1][kind] > position:
            at -= 1
        return at
