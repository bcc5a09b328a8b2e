"""An edit of a loaded model, in place: the same arithmetic as on files, and the file's own numbers put back after."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from blake3 import blake3

from prosocial.core.errors import InputError

from ..checkpoints.digests import TensorDigest, combine, digest_tensor, stream_tensor
from ..checkpoints.folder import Checkpoint
from ..checkpoints.header import TensorInfo
from ..checkpoints.tensors import FLOATS, bytes_of
from ..vectors.vector import HarmVector
from .arithmetic import Subtraction
from .plan import EditPlan
from .realised import require_subtraction

PIECE_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class InMemoryResult:
    """What an edit in memory gave.

    Attributes:
        fingerprint: of the checkpoint that `apply_edit` writes from the same plan.
        inner_product: `<edited - target, tau>` over all tensors, never above 0.
    """

    fingerprint: str
    inner_product: float


class InMemoryEdit:
    """Edits a loaded model again and again, each time from the numbers in the files, so that no rounding adds up.

    Args:
        model: a transformers model loaded from `target`, in a dtype that holds the files' numbers exactly (fp32 holds
            all). It is edited in place; nothing is copied, so the memory needed is that of the model.
        target: its checkpoint.
    """

    def __init__(self, model: Any, target: Checkpoint) -> None:
        self._target = target
        self._parameters: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self._prefix = str(model.base_model_prefix)
        self._digests = {name: digest_tensor(tensor) for name, tensor in target.tensors.items()}
        self._subtractions = {name: Subtraction(dtype, PIECE_ELEMENTS) for name, dtype in FLOATS.items()}
        self._checked: set[str] = set()
        self._edited: set[str] = set()

    def apply(self, plan: EditPlan) -> InMemoryResult:
        """Make the model the one that `apply_edit` would write, whatever edit was in it before.

        Raises:
            InputError: the plan is for another checkpoint; the model does not hold a tensor of it as the file does
                (fused experts, a dtype that rounds); a result is not finite; tied copies come apart; the edit would
                move along the vector. The model is then as it was loaded.
        """
        if plan.target.folder != self._target.folder:
            raise InputError(f"the plan should be for {self._target.folder}, found one for {plan.target.folder}")
        for name in plan.coefficients:
            self._check(name)
        self.restore()
        try:
            return self._subtract(plan)
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Put the numbers of the files back, bit for bit."""
        for name in sorted(self._edited):
            tensor, flat = self._target.tensors[name], self._flat(name)
            at = 0
            for raw in stream_tensor(tensor):
                piece = torch.frombuffer(raw, dtype=FLOATS[tensor.dtype])
                flat[at : at + len(piece)] = piece
                at += len(piece)
        self._edited.clear()

    def _subtract(self, plan: EditPlan) -> InMemoryResult:
        vector, digests, inner_product = HarmVector(plan.vector), dict(self._digests), 0.0
        for name, coefficient in plan.coefficients.items():
            digests[name], along = self._edit(plan.target.tensors[name], vector, coefficient)
            inner_product += along
        require_subtraction(inner_product)
        self._check_tied(digests)
        return InMemoryResult(combine(digests.values()), inner_product)

    def _edit(self, tensor: TensorInfo, vector: HarmVector, coefficient: float) -> tuple[TensorDigest, float]:
        """Write one edited tensor into the model; return the digest that its file would have, and `<change, delta>`."""
        flat, digest, along, at = self._flat(tensor.name), blake3(), 0.0, 0
        subtraction, dtype = self._subtractions[tensor.dtype], FLOATS[tensor.dtype]
        raw_pieces = stream_tensor(tensor, chunk_bytes=PIECE_ELEMENTS * dtype.itemsize)
        self._edited.add(tensor.name)
        for raw, delta in zip(raw_pieces, vector.pieces(tensor.name, PIECE_ELEMENTS), strict=True):
            target = torch.frombuffer(raw, dtype=dtype)
            out = subtraction.apply(target, delta, coefficient)
            along += float(torch.dot(out.double() - target.double(), delta.double()))
            digest.update(bytes_of(out))
            flat[at : at + len(out)] = out
            at += len(out)
        if not math.isfinite(along):
            raise InputError(f"{tensor.name} should stay finite in {tensor.dtype}: take a smaller scale")
        return TensorDigest.of(tensor, digest.hexdigest()), along

    def _check_tied(self, digests: dict[str, TensorDigest]) -> None:
        copies = self._target.tied.copies
        if copies and digests[copies[0]].blake3 != digests[copies[1]].blake3:
            raise InputError(f"{copies[0]} and {copies[1]} are tied: the vector should change them alike")

    def _check(self, name: str) -> None:
        """The model must hold a tensor as its file does, before the first edit of it."""
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
                    f"{name} should be in memory as in {tensor.file}: load the model from that folder, in float32"
                )
            at += len(piece)
        self._checked.add(name)

    def _flat(self, name: str) -> torch.Tensor:
        """Return a parameter as [n] elements that share its memory."""
        for candidate in (name, f"{self._prefix}.{name}", name.removeprefix(f"{self._prefix}.")):
            held = self._parameters.get(candidate)
            if held is not None and tuple(held.shape) == self._target.tensors[name].shape and held.is_contiguous():
                return held.detach().view(-1)
        raise InputError(
            f"the loaded model should hold {name} under that name and shape {self._target.tensors[name].shape}: this "
            "architecture is laid out otherwise in memory; edit its files with `prosocial edit`"
        )
