"""What explains a tensor: weights of its vectors and an arithmetic, or the elements that refute every one of them."""

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
HOPELESS = 0.1  # of a sample: where more contradicts the nearest weights, they are not made more precise
FEW = 1e-4  # of the elements; an edit of an edit parts from one sum in more than a thousandth of them
N_CONFIRMATIONS = 4
N_SAMPLES, SAMPLE_ELEMENTS = 8, 1 << 9
STARTS = (0, N_SAMPLES // 2)  # of which a single moved element can spoil one


class Solver(Protocol):
    """Intersects the weights that explain pieces."""

    @property
    def needs_confirmation(self) -> bool:
        """Whether the weights it gives must be held against all pieces once more."""

    @property
    def title(self) -> str:
        """The arithmetic, in words."""

    @property
    def weights(self) -> list[float]:
        """Weights in the middle of what is left."""

    @property
    def bounds(self) -> list[Bounds]:
        """Ends of each weight."""

    def narrow(self, piece: Piece) -> bool:
        """Keep the weights that explain the piece too; False if there are none."""

    def misfits(self, piece: Piece, weights: list[float]) -> NDArray[np.bool_]:
        """Return [n], True where the weights do not explain an element."""

    def predict(self, piece: Piece, weights: list[float]) -> NDArray[np.float32]:
        """Return [n], what the weights give."""


@dataclass(frozen=True)
class Recovery:
    """What is known of a tensor once it was searched.

    Attributes:
        arithmetic: that explains it, or that comes nearest.
        weights: of each vector: `model = base + weights @ deltas`.
        bounds: ends of each weight.
        misfits: elements that the weights do not explain.
    """

    arithmetic: str
    weights: tuple[float, ...]
    bounds: tuple[Bounds, ...]
    misfits: Misfits


def recover(reader: PieceReader, *, delta_errors: Sequence[float]) -> Recovery:
    """Find weights and an arithmetic that explain a tensor.

    Args:
        reader: of the tensor, whose elements are finite, with one to four deltas.
        delta_errors: largest absolute error of an element of each delta: 0 for one that is stored, not multiplied out.

    Returns:
        A recovery without misfits, or the nearest one with them. Roundings at every step leave room in which a changed
        element could hide, but they show in a share of all elements: where a stricter arithmetic fails at a few alone,
        these refute.
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
    """Return what to try, the strictest first: tolerance only where no arithmetic can be named."""
    makers: list[Callable[[], Solver]] = []
    if reader.n_vectors == 1:
        makers += [partial(ExactSearch, rule) for rule in rules_for(reader.dtype)]
    if reader.n_vectors > 1 or delta_errors.any():
        makers += [partial(Polytope, each, reader.dtype, reader.n_vectors, delta_errors) for each in TOLERANCES]
    return makers


def _explains(solver: Solver, reader: PieceReader) -> bool:
    """Whether weights are left after all pieces; a solver that keeps only the tightest elements is asked again."""
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
    """Find the weights that most of a tensor agrees on, and count what they leave unexplained."""
    samples = _samples(reader)
    agreed = [_agree(make(), [*samples[at:], *samples[:at]]) for make in makers for at in STARTS]
    n_wrong = [sum(int(each.misfits(piece, each.weights).sum()) for piece in samples) for each in agreed]
    best = agreed[n_wrong.index(min(n_wrong))]
    if min(n_wrong) <= HOPELESS * sum(map(len, samples)):
        best = _agree(best, (part for piece in reader.pieces() for part in _parts(piece)))
    weights, misfits = best.weights, Misfits()
    for piece in reader.pieces():
        wrong = np.flatnonzero(best.misfits(piece, weights))
        misfits.add(piece.at, wrong, piece.base, piece.found, best.predict(piece, weights))
    return Recovery(best.title, tuple(weights), tuple(best.bounds), misfits)


def _agree(solver: Solver, pieces: Iterable[Piece]) -> Solver:
    """Narrow by every piece that leaves weights, and pass over those that would leave none."""
    for piece in pieces:
        narrower = copy.copy(solver)
        if narrower.narrow(piece):
            solver = narrower
    return solver


def _parts(piece: Piece) -> list[Piece]:
    """Return a piece in parts, so that one element spoils little of a small tensor."""
    step = -(-len(piece) // N_SAMPLES)
    return [piece.take(slice(at, at + step)) for at in range(0, len(piece), step)]


def _samples(reader: PieceReader) -> list[Piece]:
    """Return copies of parts from all over the tensor; one moved element spoils one of them."""
    step = -(-reader.n_elements // N_SAMPLES)
    samples = []
    for start in range(0, reader.n_elements, step):
        at = start - start % PIECE_ELEMENTS
        end = min(start + min(step, SAMPLE_ELEMENTS), reader.n_elements, at + PIECE_ELEMENTS)
        samples.append(reader.piece(at).take(np.arange(start - at, end - at)))
    return samples
