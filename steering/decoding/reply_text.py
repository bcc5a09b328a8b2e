"""Search for forbidden phrases and stop strings in a growing reply, mapped back to tokens (torch-free)."""

from collections.abc import Sequence
from dataclasses import dataclass

from prosocial.core.chat import ChatTokenizer

from .phrases import PhraseFinder, folded

INCOMPLETE = "\ufffd"  # replacement character: the decoding of a character whose last bytes are still missing


@dataclass(frozen=True)
class Finding:
    """The result of searching the text after one more token.

    Attributes:
        phrase_token: index of the first token of a forbidden phrase; None if there is no phrase.
        cut: index in the text at which a stop string begins; None if there is no stop string.
        open_token: index of the first token whose text could still become part of a phrase, a stop string or an
            incomplete character; the number of tokens if there is none.
    """

    phrase_token: int | None
    cut: int | None
    open_token: int


class ReplyText:
    """Decodes the tokens of one reply and searches the text; matches may span tokens.

    Args:
        tokenizer: tokenizer of the model.
        phrases: searches normalised text for forbidden phrases that were normalised by `folded`.
        stops: searches the unchanged text for stop strings.
    """

    def __init__(self, tokenizer: ChatTokenizer, phrases: PhraseFinder, stops: PhraseFinder) -> None:
        self._tokenizer, self._phrases, self._stops = tokenizer, phrases, stops
        self._ends: list[tuple[int, int]] = []  # characters of the text and of the folded text after each token

    def read(self, tokens: Sequence[int]) -> Finding:
        """Search the text after the last of `tokens`; the others were passed to earlier calls, unless rolled back."""
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
        """Return the index of the token that the character at a position belongs to."""
        at = len(self._ends)
        while at and self._ends[at - 1][kind] > position:
            at -= 1
        return at
