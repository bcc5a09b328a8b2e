"""Recovery of the weights and the arithmetic that explain a tensor, or of the elements that none of them explains."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.checkpoints.numbers import PIECE_ELEMENTS

from .exact import Bounds, ExactSearch
from .intervals import TOLERANCES
from .misfits import Misfits
from .pieces import Piece, PieceReader
from .polytope import Polytope
from .rules import rules_for

MAX_VECTORS = 4
LOOSEST = TOLERANCES[-1].title
HOPELESS = 0.1  # share of a sample; if more contradicts the nearest weights, they are not refined
FEW = 1e-4  # share of the elements; a second edit of an edited tensor differs from one sum in over a thousandth
N_CONFIRMATIONS = 4
N_SAMPLES, SAMPLE_ELEMENTS = 8, 1 << 9
STARTS = (0, N_SAMPLES // 2)  # two starting samples, because a single changed element can spoil one


class Solver(Protocol):
    """Intersects the weights that explain the pieces of a tensor."""

    @property
    def needs_confirmation(self) -> bool:
        """Whether the resulting weights must be checked against all pieces once more."""

    @property
    def title(self) -> str:
        """The name of the arithmetic."""

    @property
    def weights(self) -> list[float]:
        """Weights in the middle of those that remain."""

    @property
    def bounds(self) -> list[Bounds]:
        """The interval of each weight."""

    def narrow(self, piece: Piece) -> bool:
        """Keep only the weights that also explain this piece; return False if none are left."""

    def misfits(self, piece: Piece, weights: list[float]) -> NDArray[np.bool_]:
        """Return [n], True where the weights do not explain an element."""

    def predict(self, piece: Piece, weights: list[float]) -> NDArray[np.float32]:
        """Return [n], the elements that the weights give."""


@dataclass(frozen=True)
class Recovery:
    """The result of the search on a tensor.

    Attributes:
        arithmetic: the arithmetic that explains the tensor, or comes nearest.
        weights: weight of each vector: `model = base + weights @ deltas`.
        bounds: interval of each weight.
        misfits: elements that the weights do not explain.
    """

    arithmetic: str
    weights: tuple[float, ...]
    bounds: tuple[Bounds, ...]
    misfits: Misfits


def recover(reader: PieceReader, *, delta_errors: Sequence[float]) -> Recovery:
    """Find weights and an arithmetic that explain a tensor.

    Args:
        reader: reads the tensor, whose elements are finite, with one to four deltas.
        delta_errors: largest absolute error of an element of each delta; 0 for a delta stored as such, not as factors.

    Returns:
        A recovery without misfits, or else the nearest one with its misfits. The loosest arithmetic could hide a
        changed element, but genuine rounding at every step affects a noticeable share of the elements; if a stricter
        arithmetic fails at only a few, those count as misfits.
    """
    makers = _solver_makers(reader, np.array(delta_errors))
    for n_stricter, make in enumerate(makers):
        solver = make()
        if _explains(solver, reader):
            if solver.title == LOOSEST and not any(delta_errors):
                stricter = _nearest(reader, makers[:n_stricter])
                if stricter.misfits.n <= FEW * reader.n_elements:
                    return stricter
            return Recovery(solver.title, tuple(solver.weights), tuple(solver.bounds), Misfits())
    return _nearest(reader, makers)


def _solver_makers(reader: PieceReader, delta_errors: NDArray[np.float64]) -> list[Callable[[], Solver]]:
    """Return the solvers to try, the strictest first; tolerances only where no exact arithmetic applies."""
    makers: list[Callable[[], Solver]] = []
    if reader.n_vectors == 1:
        makers += [partial(ExactSearch, rule) for rule in rules_for(reader.dtype)]
    if reader.n_vectors > 1 or delta_errors.any():
        makers += [partial(Polytope, each, reader.dtype, reader.n_vectors, delta_errors) for each in TOLERANCES]
    return makers


def _explains(solver: Solver, reader: PieceReader) -> bool:
    """Whether weights remain after all pieces; a solver that keeps only some elements is checked on all again."""
    if not all(map(solver.narrow, reader.pieces())):
        return False
    for _ in range(N_CONFIRMATIONS if solver.needs_confirmation else 0):
        weights = solver.weights
        broken = [piece.at for piece in reader.pieces() if solver.misfits(piece, weights).any()]
        if not broken:
            return True
        if not all(solver.narrow(reader.piece(at)) for at in broken):
            return False
    return not solver.needs_confirmation


def _nearest(reader: PieceReader, makers: Iterable[Callable[[], Solver]]) -> Recovery:
    """Find the weights that explain most of a tensor, and count the elements they do not explain."""
    samples = _samples(reader)
    agreed = [_agree(make(), [*samples[at:], *samples[:at]]) for make in makers for at in STARTS]
    n_wrong = [sum(int(each.misfits(piece, each.weights).sum()) for piece in samples) for each in agreed]
    best = agreed[n_wrong.index(min(n_wrong))]
    if min(n_wrong) <= HOPELESS * sum(map(len, samples)):
        best = _agree(best, (part for piece in reader.pieces() for part in _parts(piece)))
    weights, misfits = best.weights, Misfits()
    for piece in reader.pieces():
        wrong = np.flatnonzero(best.misfits(piece, weights))
        misfits.add(piece.at, wrong, piece.base, piece.model, best.predict(piece, weights))
    return Recovery(best.title, tuple(weights), tuple(best.bounds), misfits)


def _agree(solver: Solver, pieces: Iterable[Piece]) -> Solver:
    """Narrow by each piece in turn, skipping pieces that would leave no weights."""
    for piece in pieces:
        narrower = copy.copy(solver)
        if narrower.narrow(piece):
            solver = narrower
    return solver


def _parts(piece: Piece) -> list[Piece]:
    """Split a piece into parts, so that one changed element spoils only a small part of a small tensor."""
    step = -(-len(piece) // N_SAMPLES)
    return [piece.take(slice(at, at + step)) for at in range(0, len(piece), step)]


def _samples(reader: PieceReader) -> list[Piece]:
    """Return copies of evenly spread parts of the tensor; one changed element spoils only one of them."""
    step = -(-reader.n_elements // N_SAMPLES)
    samples = []
    for start in range(0, reader.n_elements, step):
        at = start - start % PIECE_ELEMENTS
        end = min(start + min(step, SAMPLE_ELEMENTS), reader.n_elements, at + PIECE_ELEMENTS)
        samples.append(reader.piece(at).take(np.arange(start - at, end - at)))
    return samples
