"""Editing a loaded model in place with the same arithmetic as for files, and restoring it from its files."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from blake3 import blake3

from prosocial.core.errors import InputError

from ..checkpoints.digests import TensorDigest, combine, digest_tensor, stream_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.header import TensorInfo
from ..checkpoints.tensors import FLOATS, bytes_of
from .arithmetic import Subtraction
from .deltas import Delta, Deltas
from .plan import EditPlan
from .realised import require_subtraction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PIECE_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class InMemoryResult:
    """Result of an edit in memory.

    Attributes:
        fingerprint: fingerprint of the checkpoint that `apply_edit` would write from the same plan.
        inner_product: `<edited - target, tau>` summed over all tensors, never above 0.
    """

    fingerprint: str
    inner_product: float


class InMemoryEdit:
    """Edits a loaded model repeatedly, each time from the weights in its files, so rounding errors do not accumulate.

    Args:
        model: a transformers model loaded from `target`, in a dtype that represents the stored weights exactly (fp32
            always does). It is edited in place without a copy of the weights.
        target: the checkpoint that the model was loaded from.

    Raises:
        InputError: some of the weights are kept outside the model, as those of a model that is spread over devices.
    """

    def __init__(self, model: "PreTrainedModel", target: Checkpoint) -> None:
        self._target = target
        self._parameters: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
        if any(held.is_meta for held in self._parameters.values()):
            raise InputError(
                "a model that is edited in memory should fit into the memory of one device, this one is spread: choose "
                "a device with more memory, --device cpu, or a smaller dtype"
            )
        self._prefix = str(model.base_model_prefix)
        self._digests = {name: digest_tensor(tensor) for name, tensor in target.tensors.items()}
        self._subtractions = {name: Subtraction(dtype, PIECE_ELEMENTS) for name, dtype in FLOATS.items()}
        self._checked: set[str] = set()
        self._edited: set[str] = set()

    def apply(self, plan: EditPlan) -> InMemoryResult:
        """Apply a plan to the loaded weights; an edit applied before is undone first.

        The model then equals the one that `apply_edit` would write. After an exception it is in its loaded state.

        Raises:
            InputError: the plan is for another checkpoint; the model does not hold a tensor as its file does (fused
                experts, a dtype that rounds); a result is not finite; tied copies would differ; the edit would move
                along the vector instead of against it.
        """
        if plan.target.folder != self._target.folder:
            raise InputError(
                f"the plan should be for {self._target.folder}, found one for {plan.target.folder}: plan the edit again"
            )
        for name in plan.coefficients:
            self._check(name)
        self.restore()
        try:
            return self._subtract(plan)
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Restore the loaded weights from the files, bit for bit."""
        for name in sorted(self._edited):
            tensor, flat = self._target.tensors[name], self._flat(name)
            at = 0
            for raw in stream_tensor(tensor):
                piece = torch.frombuffer(raw, dtype=FLOATS[tensor.dtype])
                flat[at : at + len(piece)] = piece
                at += len(piece)
        self._edited.clear()

    def _subtract(self, plan: EditPlan) -> InMemoryResult:
        deltas, digests, inner_product = Deltas(plan.vector), dict(self._digests), 0.0
        for name, coefficient in plan.coefficients.items():
            with deltas.delta(name) as opened:
                digests[name], along = self._edit(plan.target.tensors[name], opened, coefficient)
            inner_product += along
        require_subtraction(inner_product)
        self._check_tied(digests)
        return InMemoryResult(combine(digests.values()), inner_product)

    def _edit(self, tensor: TensorInfo, opened: Delta, coefficient: float) -> tuple[TensorDigest, float]:
        """Write one edited tensor into the model; return the digest it would have in a file, and `<change, delta>`."""
        flat, digest, along, at = self._flat(tensor.name), blake3(), 0.0, 0
        subtraction, dtype = self._subtractions[tensor.dtype], FLOATS[tensor.dtype]
        raw_pieces = stream_tensor(tensor, chunk_bytes=PIECE_ELEMENTS * dtype.itemsize)
        self._edited.add(tensor.name)
        for raw in raw_pieces:
            target = torch.frombuffer(raw, dtype=dtype)
            delta = torch.from_numpy(opened.piece(at, len(target)))
            out = subtraction.apply(target, delta, coefficient)
            along += float(torch.dot(out.double() - target.double(), delta.double()))
            digest.update(bytes_of(out))
            flat[at : at + len(out)] = out
            at += len(out)
        if not math.isfinite(along):
            raise InputError(
                f"{tensor.name} should stay finite in {tensor.dtype}, the edit makes it NaN or infinite: use a smaller "
                "scale"
            )
        return TensorDigest.of(tensor, digest.hexdigest()), along

    def _check_tied(self, digests: dict[str, TensorDigest]) -> None:
        copies = self._target.tied.copies
        if copies and digests[copies[0]].blake3 != digests[copies[1]].blake3:
            raise InputError(
                f"{copies[0]} and {copies[1]} are tied and should stay equal, the vector changes them differently: "
                "make the vector from parents with tied embeddings"
            )

    def _check(self, name: str) -> None:
        """Check before the first edit of a tensor that the model holds the same values as the file."""
        if name in self._checked:
            return
        tensor, flat = self._target.tensors[name], self._flat(name)
        at = 0
        for raw in stream_tensor(tensor):
            piece = torch.frombuffer(raw, dtype=FLOATS[tensor.dtype])
            held = flat[at : at + len(piece)].cpu()
            if torch.promote_types(piece.dtype, held.dtype) != held.dtype or not torch.equal(
                piece.to(held.dtype), held
            ):
                raise InputError(
                    f"{name} should have the same values in memory as in {tensor.file}, they differ: load the model "
                    "from that folder, in float32"
                )
            at += len(piece)
        self._checked.add(name)

    def _flat(self, name: str) -> torch.Tensor:
        """Return a parameter as a flat view [n]."""
        for candidate in (name, f"{self._prefix}.{name}", name.removeprefix(f"{self._prefix}.")):
            held = self._parameters.get(candidate)
            if held is not None and tuple(held.shape) == self._target.tensors[name].shape and held.is_contiguous():
                return held.detach().view(-1)
        raise InputError(
            f"the loaded model should have a parameter {name} of shape {self._target.tensors[name].shape}: this "
            "architecture has another layout in memory; edit its files with `prosocial edit`"
        )
