"""Project each matrix onto the input directions that benign inputs do not use (AlphaEdit, arXiv 2410.02355).

P = U0 U0^T, where the columns of U0 are the eigenvectors of E[k k^T] with an eigenvalue below the threshold and k are
the benign inputs of the matrix. tau' = tau P, so tau' k is about 0: the matrix's outputs for benign inputs stay.

Safety subspaces are not linearly distinct (arXiv 2505.14185): measure utility after every edit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prosocial.core.errors import InputError
from prosocial.core.files import blake3_file

from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method
from .numbers import Number


def null_space(moment: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the eigenvectors [d, r] (float64) of a second moment [d, d] whose eigenvalues are below `threshold`."""
    values, vectors = torch.linalg.eigh(moment.double())
    unused: torch.Tensor = vectors[:, values < threshold]
    return unused


def project_inputs(delta: torch.Tensor, basis: torch.Tensor, *, transposed: bool) -> torch.Tensor:
    """Return the delta of a linear layer's weight, projected so that it acts only on inputs in the span of a basis.

    Args:
        delta: [out, in] fp32, or [in, out] if transposed.
        basis: orthonormal basis, [in, r] float64.
        transposed: whether the weight is stored as [in, out].

    Returns:
        The projected delta, fp32, of the delta's shape.
    """
    maps = (delta.T if transposed else delta).double()  # [out, in]
    left = (maps @ basis) @ basis.T
    return (left.T if transposed else left).float().contiguous()


@method()
def prepare(
    deltas: Deltas,
    *,
    activations: Path | str,
    threshold: Annotated[float, Number(0, above=True, search=(1e-4, 1.0), log=True)] = 2e-2,
) -> Prepared:
    """Open the second moments of benign inputs (see `collect_input_moments`).

    Tensors without a second moment in the file stay as they are.

    Args:
        deltas: only their names and shapes are read.
        activations: path of the file of second moments.
        threshold: directions with an eigenvalue below it count as unused, in units of squared activations; the default
            is the paper's.

    Raises:
        ArtefactError: the file does not hold second moments.
        InputError: the file holds no matrix of the vector, or one of another size.
    """
    from ..input_moments import InputMoments

    if not isinstance(activations, (str, Path)):
        raise InputError(f"activations should be a file of second moments, found {activations!r:.60}")
    moments = InputMoments.open(activations)
    shared = set(moments.names) & set(deltas.names)
    if not shared:
        raise InputError(
            f"{activations} should hold second moments for some matrix of the harm vector: they have no name in "
            "common; make the file from the base of the vector"
        )
    for name in sorted(shared):
        moments.check_fits(name, deltas.shape(name))

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        if name not in shared:
            return delta
        basis = null_space(moments.moment(name), threshold)
        return project_inputs(delta, basis, transposed=name in moments.transposed)

    return Prepared(in_torch(transform), {"activations_blake3": blake3_file(Path(activations)), "threshold": threshold})
