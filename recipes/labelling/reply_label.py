"""The label of a reply: its harms, and whether it does what the request asks for."""

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True)
class ReplyLabel:
    """The label of a reply, from which its error score is computed.

    Attributes:
        harms: names of its harm categories.
        addressed: whether it does what the request asks for.
    """

    harms: frozenset[str]
    addressed: bool

    def collapsed(self, known: Set[str], *, rest: str) -> "ReplyLabel":
        """Return the label with every harm outside `known` replaced by `rest`.

        Examples:
            >>> ReplyLabel(frozenset({"drugs"}), True).collapsed({"violence"}, rest="other").harms
            frozenset({'other'})
        """
        return ReplyLabel(frozenset(name if name in known else rest for name in self.harms), self.addressed)
