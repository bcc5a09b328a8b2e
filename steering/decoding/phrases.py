"""Search for many phrases at once in a growing text, by an Aho-Corasick automaton (torch-free)."""

import re
import unicodedata
from collections.abc import Sequence

import ahocorasick

SLACK = 8  # characters to search again: a new combining character may change the ones before it
_SPACES = re.compile(r"\s+")


class PhraseFinder:
    """Searches texts for a fixed set of phrases.

    Args:
        phrases: the phrases, none of them empty.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        self.longest = max(map(len, phrases), default=0)
        self._automaton = ahocorasick.Automaton()
        for phrase in phrases:
            self._automaton.add_word(phrase, len(phrase))
        self._automaton.make_automaton()

    def find(self, text: str, *, searched: int = 0) -> int | None:
        """Return the index at which the first phrase in a text begins, or None.

        Args:
            text: the text to search.
            searched: length of the beginning of the text that an earlier call searched without a match.

        Examples:
            >>> PhraseFinder(["she sells", "sells"]).find("where she sells shells")
            6
        """
        if not self.longest:
            return None
        start = max(0, searched - self.longest - SLACK)
        return min((end + 1 - length for end, length in self._automaton.iter(text, start)), default=None)

    def open_from(self, text: str) -> int:
        """Return the index from which the end of a text could become a phrase if more text follows.

        It is the length of the text if no suffix is the beginning of a phrase.

        Examples:
            >>> PhraseFinder(["stop here"]).open_from("do not stop"), PhraseFinder(["stop here"]).open_from("do")
            (7, 2)
        """
        for length in range(min(self.longest - 1, len(text)), 0, -1):
            if self._automaton.match(text[-length:]):
                return len(text) - length
        return len(text)


def folded(text: str) -> str:
    """Return a text normalised for phrase search: NFKC, case-folded, format characters removed, white space collapsed.

    Examples:
        >>> folded("Ｍake  a\\u200b B\\u00adOMB")
        'make a bomb'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return _SPACES.sub(" ", text.casefold())
