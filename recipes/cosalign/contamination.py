"""Finds training prompts that also occur in an evaluation set, exactly or as near duplicates."""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from prosocial.core.settings import Count, Settings

_WORD = re.compile(r"\w+")


class ContaminationSettings(Settings):
    """When two prompts count as duplicates.

    Attributes:
        similarity: Jaccard similarity of the sets of character shingles at or above which two prompts are near
            duplicates.
        shingle: number of characters in a shingle.
    """

    similarity: float = Field(default=0.7, gt=0.0, le=1.0)
    shingle: Count = 5


@dataclass(frozen=True)
class Duplicate:
    """A training prompt that also occurs in an evaluation set.

    Attributes:
        index: index of the training prompt.
        other: index of the most similar evaluation prompt.
        kind: "exact" (the same words in the same order) or "near".
        similarity: Jaccard similarity of their shingles.
    """

    index: int
    other: int
    kind: Literal["exact", "near"]
    similarity: float


def normalised(text: str) -> str:
    """Return a text in lower case, without punctuation, with compatible characters unified (NFKC).

    Examples:
        >>> normalised("  What IS a “knot”?!")
        'what is a knot'
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def find_duplicates(
    prompts: Sequence[str], evaluation: Sequence[str], settings: ContaminationSettings
) -> list[Duplicate]:
    """Return every training prompt that also occurs among the evaluation prompts.

    The search is exact: two sets with a Jaccard similarity of at least t share one of the |A| - ceil(t |A|) + 1 rarest
    elements of each set A (prefix filtering, Chaudhuri et al. 2006), so only pairs that share one are compared.

    Examples:
        >>> prompts, evaluation = ["Tie a bowline!", "Bake some bread"], ["tie a bowline"]
        >>> duplicates = find_duplicates(prompts, evaluation, ContaminationSettings())
        >>> [(each.index, each.kind) for each in duplicates]
        [(0, 'exact')]
    """
    others = [normalised(text) for text in evaluation]
    same = {text: at for at, text in reversed(list(enumerate(others)))}
    index = _Index([_shingles(text, settings.shingle) for text in others], settings.similarity)
    duplicates: list[Duplicate] = []
    for number, prompt in enumerate(prompts):
        text = normalised(prompt)
        if text in same:
            duplicates.append(Duplicate(number, same[text], "exact", 1.0))
        elif (near := index.nearest(_shingles(text, settings.shingle))) is not None:
            duplicates.append(Duplicate(number, near[0], "near", near[1]))
    return duplicates


def _shingles(text: str, size: int) -> frozenset[str]:
    return frozenset(text[at : at + size] for at in range(max(1, len(text) - size + 1)))


class _Index:
    """An inverted index from the rarest elements of sets to the sets."""

    def __init__(self, sets: Sequence[frozenset[str]], similarity: float) -> None:
        self._sets, self._similarity = sets, similarity
        self._counts = Counter(element for one in sets for element in one)
        self._holders: dict[str, list[int]] = defaultdict(list)
        for at, one in enumerate(sets):
            for element in self._prefix(one):
                self._holders[element].append(at)

    def nearest(self, one: frozenset[str]) -> tuple[int, float] | None:
        """Return the index of the most similar set and its similarity, or None if that is too low."""
        near = {at for element in self._prefix(one) for at in self._holders.get(element, ())}
        similar = [(len(one & self._sets[at]) / len(one | self._sets[at]), -at) for at in near]
        best = max(similar, default=(0.0, 0))
        return (-best[1], best[0]) if best[0] >= self._similarity else None

    def _prefix(self, one: frozenset[str]) -> list[str]:
        length = len(one) - math.ceil(self._similarity * len(one) - 1e-9) + 1  # 0.7 * 10 rounds to more than 7
        return sorted(one, key=lambda element: (self._counts[element], element))[:length]
