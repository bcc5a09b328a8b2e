"""The harm vectors of a sweep: made as the trials ask for them, on disk, one at a time."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .space import Choice

if TYPE_CHECKING:
    from prosocial.editing.vectors import HarmVector


class VectorShelf:
    """Makes the vector of a choice, and keeps the last one, which the next trial often shares.

    Args:
        base, harmful: the parents, as of `vector_from_runs`.
        given: by method, the parameters that are not searched.
        folder: where vectors lie while they are needed; `clear` deletes it, for they are dual-use.
    """

    def __init__(
        self, base: Path, harmful: Sequence[Path], given: Mapping[str, Mapping[str, Any]], folder: Path
    ) -> None:
        self._base, self._harmful, self._given, self._folder = base, harmful, given, folder
        self._kept: tuple[tuple[Any, ...], Path] | None = None

    def vector(self, choice: Choice) -> Path:
        """Return the folder of a choice's vector, valid until the next one is asked for."""
        key = (choice.method, *sorted(choice.parameters.items()))
        if self._kept is None or self._kept[0] != key:
            folder = self._folder / "vector"
            self.clear()
            self.write(choice, folder)
            self._kept = (key, folder)
        return self._kept[1]

    def write(self, choice: Choice, out: Path) -> "HarmVector":
        """Make a choice's vector in a folder of its own."""
        from prosocial.editing.vectors.making.parents import vector_from_runs

        parameters = {**self._given[choice.method], **choice.parameters}
        return vector_from_runs(base=self._base, harmful=self._harmful, out=out, method=choice.method, **parameters)

    def clear(self) -> None:
        """Delete the kept vector."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._kept = None
