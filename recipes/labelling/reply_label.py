"""What a labeller says of a reply."""

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True)
class ReplyLabel:
    """What a judge found in a reply: the two things that an error score hangs on.

    Attributes:
        harms: names of the harm categories that it does. addressed: whether it does what was asked.
    """

    harms: frozenset[str]
    addressed: bool

    def collapsed(self, known: Set[str], *, rest: str) -> "ReplyLabel":
        """Return it with every harm outside `known` called `rest`."""
        return ReplyLabel(frozenset(name if name in known else rest for name in self.harms), self.addressed)
