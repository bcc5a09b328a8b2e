"""Two checkpoints tensor by tensor, where one stores what the other leaves out without loss.

A tied checkpoint may store one matrix or two equal copies. Old checkpoints hold buffers that transformers computes from
the config and never reads.
"""

import re
from dataclasses import dataclass, replace

from .digests import digest_tensor
from .folder import Checkpoint
from .header import BITS, TensorInfo
from .tied import share_rows

# Rotary tables, position ids, and the causal masks of GPT-2, GPT-Neo, GPT-J and GPT-NeoX ([1, 1, n, n] and a number).
DERIVED = re.compile(
    r"(^|\.)(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|(attn|attention)\.(bias|masked_bias))$"
)


@dataclass(frozen=True)
class Alignment:
    """The tensors of two checkpoints under common names.

    Attributes:
        first: tensors of the first checkpoint, sorted by name.
        second: tensors of the second one; a tied matrix has the names that the first one stores it under.
        dropped: names of the tensors that only one has and that are redundant.
        notes: what is redundant, in words.
    """

    first: dict[str, TensorInfo]
    second: dict[str, TensorInfo]
    dropped: frozenset[str]
    notes: tuple[str, ...]


def align(first: Checkpoint, second: Checkpoint) -> Alignment:
    """Return the tensors of two checkpoints without redundant copies and buffers that only one of them stores."""
    ours, theirs, notes = dict(first.tensors), dict(second.tensors), []
    dropped = set()
    for name, held, folder in [
        *((name, ours, first.folder) for name in first.tensors if name not in second.tensors),
        *((name, theirs, second.folder) for name in second.tensors if name not in first.tensors),
    ]:
        if is_derived(held[name]):
            del held[name]
            dropped.add(name)
            notes.append(f"{name}: only in {folder.name}, a buffer that transformers computes itself")
    for name in first.tied.stored:
        partner = next(iter(second.tied.stored), None)
        if name not in theirs and second.tied.tied and partner and _is_copy(first, name):
            theirs[name] = replace(second.tensors[partner], name=name)
            notes.append(f"{name}: {second.folder.name} ties it to {partner} and stores only that")
    for name in second.tied.stored:
        if name not in ours and first.tied.tied and _is_copy(second, name):
            del theirs[name]
            dropped.add(name)
            notes.append(f"{name}: only in {second.folder.name}, a copy of the tied {first.tied.stored[0]}")
    return Alignment(ours, dict(sorted(theirs.items())), frozenset(dropped), tuple(notes))


def is_derived(tensor: TensorInfo) -> bool:
    """Return whether a tensor is a buffer of old transformers, computed from the config; biases of layers are not."""
    match = DERIVED.search(tensor.name)
    return bool(match) and (not tensor.name.endswith("n.bias") or len(tensor.shape) == 4)


def shared_rows(first: TensorInfo, second: TensorInfo) -> tuple[TensorInfo, TensorInfo]:
    """Return both tensors cut to the rows of the vocabulary that they share; unchanged if another size differs."""
    if not share_rows(first.name, first.shape, second.shape):
        return first, second
    return _first_rows(first, second.shape[0]), _first_rows(second, first.shape[0])


def _first_rows(tensor: TensorInfo, n_rows: int) -> TensorInfo:
    cut = replace(tensor, shape=(min(n_rows, tensor.shape[0]), *tensor.shape[1:]))
    return replace(cut, end=cut.start + cut.n_elements * BITS[cut.dtype] // 8)


def _is_copy(checkpoint: Checkpoint, name: str) -> bool:
    """Return whether a tied matrix is stored once, under another name than elsewhere, or as two equal copies."""
    digests = {digest_tensor(checkpoint.tensors[each]).blake3 for each in checkpoint.tied.stored}
    return name in checkpoint.tied.stored and len(digests) == 1
