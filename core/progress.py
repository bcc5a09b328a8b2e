"""Progress of long work; silent unless the caller shows it (torch-free)."""

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Counts the steps of work that has one or more parts."""

    def start(self, total: int | None, description: str) -> None:
        """Begin a part that has `total` steps (None: not known)."""
        ...

    def advance(self, n: int = 1, *, tokens: int = 0) -> None:
        """Say that `n` more steps are done, in which so many tokens were read or drawn (0: not known)."""
        ...

    def track(self, items: Iterable[Item], description: str, *, total: int | None = None) -> Iterator[Item]:
        """Yield the items and count them; `total` is needed only where they have no length."""
        self.start(len(items) if total is None and isinstance(items, Sized) else total, description)
        for item in items:
            yield item
            self.advance()


class SilentProgress(Progress):
    """Shows nothing.

    Examples:
        >>> list(SilentProgress().track([1, 2], "count"))
        [1, 2]
    """

    def start(self, total: int | None, description: str) -> None:
        """Show nothing."""

    def advance(self, n: int = 1, *, tokens: int = 0) -> None:
        """Show nothing."""


SILENT = SilentProgress()
