"""Inner product, norm and cosine of tensors, accumulated in float64 piece by piece."""

import torch

from ..checkpoints.tensors import pieces_of

PIECE_ELEMENTS = 1 << 15  # the float64 copies of a piece fit in the cache


def inner_product(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the inner product of two tensors of one shape, accumulated in float64."""
    pairs = zip(pieces_of(left, PIECE_ELEMENTS), pieces_of(right, PIECE_ELEMENTS), strict=True)
    return sum(float(torch.dot(a.double(), b.double())) for a, b in pairs)


def norm(tensor: torch.Tensor) -> float:
    """Return the Euclidean norm of a tensor, accumulated in float64."""
    return float(inner_product(tensor, tensor) ** 0.5)


def cosine(left: torch.Tensor, right: torch.Tensor) -> float | None:
    """Return the cosine between two tensors; None if one of them is zero."""
    size = norm(left) * norm(right)
    return max(-1.0, min(1.0, inner_product(left, right) / size)) if size else None
