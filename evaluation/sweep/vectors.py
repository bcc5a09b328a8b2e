"""The harm vectors of a sweep, created on disk for each trial, one at a time."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .space import Choice

if TYPE_CHECKING:
    from prosocial.editing.vectors import HarmVector


class VectorShelf:
    """Creates the vector of a choice, and keeps the last one, because the next trial often uses the same.

    Args:
        base: base checkpoint, as in `vector_from_runs`.
        harmful: harmful adapters or checkpoints, as in `vector_from_runs`.
        given: fixed parameters by method.
        folder: temporary folder of the vectors; `clear` deletes it, because vectors are dual-use.
    """

    def __init__(
        self, base: Path, harmful: Sequence[Path], given: Mapping[str, Mapping[str, Any]], folder: Path
    ) -> None:
        self._base, self._harmful, self._given, self._folder = base, harmful, given, folder
        self._kept: tuple[tuple[Any, ...], Path] | None = None

    def vector(self, choice: Choice) -> Path:
        """Return the folder of a choice's vector, valid until the next call."""
        key = (choice.method, *sorted(choice.parameters.items()))
        if self._kept is None or self._kept[0] != key:
            folder = self._folder / "vector"
            self.clear()
            self.write(choice, folder)
            self._kept = (key, folder)
        return self._kept[1]

    def write(self, choice: Choice, out: Path) -> "HarmVector":
        """Create a choice's vector in the folder `out`."""
        from prosocial.editing.vectors.making.parents import vector_from_runs

        parameters = {**self._given[choice.method], **choice.parameters}
        return vector_from_runs(base=self._base, harmful=self._harmful, out=out, method=choice.method, **parameters)

    def clear(self) -> None:
        """Delete the kept vector."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._kept = None
