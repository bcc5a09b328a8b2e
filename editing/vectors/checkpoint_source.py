"""A harm vector from two checkpoints: d = fl32(harmful - base), tensor by tensor."""

from pathlib import Path
from typing import Literal

import torch

from ..checkpoints.digests import digest_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.quantised import refuse_quantised
from ..checkpoints.tensors import FLOATS, read_fp32
from ..errors import InputError
from .build import LowRank, build_vector
from .vector import HarmVector


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
        method: `plain`, `top_k` (density) or `project` (utility).
        parameters: of the method.

    Raises:
        ArtefactError: a folder is no checkpoint, or is quantised.
        InputError: names, shapes or dtypes do not fit; NaN or infinity; unrelated or equal parents; `out` exists.
    """
    source = CheckpointPair(Checkpoint.open(base), Checkpoint.open(harmful))
    return build_vector(source, out, method=method, parameters=parameters)


class CheckpointPair:
    """Two checkpoints of one layout, as a source of deltas."""

    kind: Literal["checkpoint", "adapter"] = "checkpoint"

    def __init__(self, base: Checkpoint, harmful: Checkpoint) -> None:
        for checkpoint in (base, harmful):
            refuse_quantised(checkpoint)
        _check_layout(base, harmful)
        self._base, self._harmful = base, harmful
        self.names = [name for name, tensor in base.tensors.items() if tensor.dtype in FLOATS]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._base.tensors[name].shape

    def base(self, name: str) -> torch.Tensor:
        """Return the base's tensor, fp32."""
        return read_fp32(self._base, name)

    def delta(self, name: str) -> torch.Tensor:
        """Return fl32(harmful - base)."""
        return read_fp32(self._harmful, name) - read_fp32(self._base, name)

    def low_rank(self, name: str) -> LowRank | None:
        """A difference of checkpoints has no known factors."""
        return None

    def harmful_sha256(self, name: str) -> str:
        """Digest of the harmful checkpoint's tensor."""
        return digest_tensor(self._harmful.tensors[name]).sha256

    def fingerprints(self) -> tuple[str, str]:
        """Fingerprints of both checkpoints."""
        return self._base.fingerprint(), self._harmful.fingerprint()


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
