"""A fast path in one pass over the stored bits: one vector, subtracted with this package's own arithmetic."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.edits.piece import PieceEdit

from .exact import ExactSearch
from .misfits import Misfits
from .pieces import PieceReader
from .recovery import Recovery
from .rules import RoundedOnce


def recover_in_one_pass(reader: PieceReader) -> Recovery | None:
    """Return the weights that reproduce a tensor with a single rounding; None if the general search is needed.

    Both ends of the remaining interval are applied to each piece as an edit and compared with the model's bits. If both
    reproduce them, every weight between does too (see `ExactSearch`); only other pieces are searched.

    Args:
        reader: reads the tensor. The result is None for elements that are not finite, a dtype other than the base's,
            a number of vectors other than one, and any other arithmetic.
    """
    if reader.n_vectors != 1 or reader.base_dtype != reader.dtype:
        return None
    search, edit = ExactSearch(RoundedOnce(reader.dtype)), PieceEdit(reader.dtype)
    for at in reader.places:
        base, model = reader.stored(at)
        delta = reader.delta(at, len(base))
        if not all(_gives(edit, base, delta, weight, model) for weight in search.ends):
            piece = reader.piece(at)
            if not all(piece.finite()) or not search.narrow(piece):
                return None
    return Recovery(search.title, tuple(search.weights), tuple(search.bounds), Misfits())


def _gives(edit: PieceEdit, base: NDArray[Any], delta: NDArray[np.float32], weight: float, model: NDArray[Any]) -> bool:
    """Whether a weight reproduces the stored bits and all numbers are finite."""
    out, sums = edit.apply(base, delta, -weight)
    squares = (sums.target_square, sums.delta_square, sums.change_square)
    return bool(np.isfinite(squares).all()) and np.array_equal(out, model)
