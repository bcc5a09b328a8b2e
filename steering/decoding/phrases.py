"""Search for many phrases at once in a growing text, by an Aho-Corasick automaton (torch-free)."""

import re
import unicodedata
from collections.abc import Sequence

import ahocorasick

from prosocial.core.errors import InputError

SLACK = 8  # characters to search again: a new combining character may change the ones before it
LONGEST_PHRASE = 2_000  # characters; the automaton recurses once per character, and overflows the stack at some length
MOST_CHARACTERS = 1_000_000  # of all phrases together; the automaton takes about 100 bytes for each
_SPACES = re.compile(r"\s+")
# What a reader does not see: Unicode's default-ignorable characters (soft hyphen, zero-width characters, variation
# selectors, combining grapheme joiner, fillers, tags), other format characters, controls, and lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def require_searchable(phrases: Sequence[str], *, what: str) -> None:
    """Check that phrases are not empty and that an automaton can hold them; `what` names them in errors.

    Raises:
        InputError: a phrase is empty or too long, or all together are.
    """
    longest, total = max(map(len, phrases), default=0), sum(map(len, phrases))
    if not all(phrases):
        raise InputError(f"{what} should not be empty, found an empty one: remove it")
    if longest > LONGEST_PHRASE:
        raise InputError(f"{what} should have at most {LONGEST_PHRASE} characters each, found {longest}: shorten it")
    if total > MOST_CHARACTERS:
        raise InputError(f"{what} should have at most {MOST_CHARACTERS} characters together, found {total}: use fewer")


class PhraseFinder:
    """Searches texts for a fixed set of phrases.

    Args:
        phrases: the phrases, none of them empty.

    Raises:
        InputError: a phrase is empty or too long, or all together are.
    """

    def __init__(self, phrases: Sequence[str]) -> None:
        require_searchable(phrases, what="phrases")
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
    """Return a text normalised for phrase search: NFKC, case-folded, without invisible characters, spaces collapsed.

    Examples:
        >>> folded("Ｍake  a\\u200b B\\u00adOMB")
        'make a bomb'
    """
    text = _INVISIBLE.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    return _SPACES.sub(" ", text.casefold().replace("\u2800", " "))
