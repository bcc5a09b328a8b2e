"""The common case, decided in one pass over the stored bits: one vector, subtracted as this package does it."""

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
    """Return the weights that give a tensor back, rounded once; None where that is not enough to say.

    The ends of the weights left are tried on each piece as an edit, and its bits compared with the model's: where both
    give these, so does every weight between (see `ExactSearch`). Only pieces that narrow the weights are searched.

    Args:
        reader: of the tensor. Elements that are not finite, other dtypes than the base's, no or several vectors, and
            whatever other arithmetic made: None.
    """
    if reader.n_vectors != 1 or reader.base_dtype != reader.dtype:
        return None
    search, edit = ExactSearch(RoundedOnce(reader.dtype)), PieceEdit(reader.dtype)
    for at in reader.places:
        base, found = reader.stored(at)
        delta = reader.delta(at, len(base))
        if not all(_gives(edit, base, delta, weight, found) for weight in search.ends):
            piece = reader.piece(at)
            if not all(piece.finite()) or not search.narrow(piece):
                return None
    return Recovery(search.title, tuple(search.weights), tuple(search.bounds), Misfits())


def _gives(edit: PieceEdit, base: NDArray[Any], delta: NDArray[np.float32], weight: float, found: NDArray[Any]) -> bool:
    """Whether a weight gives the stored bits, all of finite numbers."""
    out, sums = edit.apply(base, delta, -weight)
    squares = (sums.target_square, sums.delta_square, sums.change_square)
    return bool(np.isfinite(squares).all()) and np.array_equal(out, found)
