"""A harm vector from two checkpoints: d = fl32(harmful - base), tensor by tensor."""

from pathlib import Path

import torch

from ..checkpoints.folder import Checkpoint
from ..checkpoints.numbers import stream_fp32
from ..checkpoints.quantised import refuse_quantised
from ..checkpoints.tensors import FLOATS, read_fp32
from ..errors import InputError
from .base import Base, DigestedCheckpoint
from .build import build_vector
from .description import HarmfulParent, Relatedness, Step
from .runs import Relation, Runs
from .vector import HarmVector, LowRank


def vector_from_checkpoints(
    *, base: Path | str, harmful: Path | str, out: Path, method: str = "plain", **parameters: object
) -> HarmVector:
    """Make the harm vector of a fully fine-tuned harmful checkpoint.

    Sharding may differ; names and shapes may not. Tensors are F32, F16 or BF16, in either parent; other dtypes (buffers
    of whole numbers) must be equal in both.

    Args:
        base: the checkpoint that the harmful one was trained from.
        harmful: the harmful checkpoint.
        out: the new vector folder.
        method: a name of the registry (`docs/methods.md`).
        parameters: of the method.

    Raises:
        ArtefactError: a folder is no checkpoint, or is quantised.
        InputError: names, shapes or dtypes do not fit; NaN or infinity; unrelated or equal parents; `out` exists.
    """
    pair = CheckpointPair(Base(Checkpoint.open(base)), Checkpoint.open(harmful))
    return build_vector(Runs([pair]), out, method=method, parameters=parameters)


class CheckpointPair:
    """Two checkpoints of one layout, as a harmful run."""

    n_parents = 1

    def __init__(self, base: Base, harmful: Checkpoint) -> None:
        refuse_quantised(harmful)
        _check_layout(base.checkpoint, harmful)
        self._base, self._harmful = base, DigestedCheckpoint(harmful)
        self.names = [name for name, tensor in base.checkpoint.tensors.items() if tensor.dtype in FLOATS]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._base.shape(name)

    def delta(self, name: str) -> torch.Tensor:
        """Return fl32(harmful - base)."""
        delta, at = read_fp32(self._harmful.checkpoint, name), 0
        flat = delta.view(-1).numpy()
        for base in stream_fp32(self._base.checkpoint.tensors[name]):
            flat[at : at + len(base)] -= base
            at += len(base)
        return delta

    def relation(self, name: str, delta: torch.Tensor) -> Relation:
        """Relate the base's tensor and the harmful one."""
        return self._base.relation(name, delta)

    def low_rank(self, name: str) -> LowRank | None:
        """A difference of checkpoints has no known factors."""
        return None

    def harmful_blake3(self, name: str) -> tuple[str]:
        """Digest of the harmful checkpoint's tensor."""
        return (self._harmful.digest(name).blake3,)

    def base_fingerprint(self) -> str:
        """Fingerprint of the base."""
        return self._base.fingerprint()

    def parents(self, relatedness: Relatedness) -> list[HarmfulParent]:
        """The harmful checkpoint."""
        return [HarmfulParent(kind="checkpoint", fingerprint=self._harmful.fingerprint(), relatedness=relatedness)]

    def steps(self) -> list[Step]:
        """A difference of checkpoints comes from no saved vector."""
        return []


def _check_layout(base: Checkpoint, harmful: Checkpoint) -> None:
    difference = sorted(set(base.tensors) ^ set(harmful.tensors))
    if difference:
        where = "base" if difference[0] in base.tensors else "harmful"
        raise InputError(
            f"base and harmful should hold the same tensors: {len(difference)} are in one only, such as "
            f"{difference[0]!r} ({where}); tie or untie the embeddings alike, and merge adapters, before saving"
        )
    for name, tensor in base.tensors.items():
        other = harmful.tensors[name]
        if tensor.shape != other.shape:
            raise InputError(
                f"{name} should have one shape in both, found {tensor.shape} in base and {other.shape} in harmful; "
                "give the base that it was trained from"
            )
        floats = (tensor.dtype in FLOATS) + (other.dtype in FLOATS)
        if floats == 1 or (floats == 0 and base.read(name) != harmful.read(name)):
            raise InputError(
                f"{name} should be {', '.join(FLOATS)} in both, found {tensor.dtype} and {other.dtype}; save both so"
            )
