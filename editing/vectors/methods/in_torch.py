"""Methods that compute with torch, behind the arrays that all methods take and return; they share memory.

They import `torch` from here: it is loaded when a method computes, so that listing the methods needs none. Annotations
should not load it either: a file that names `torch.Tensor` in one begins with `from __future__ import annotations`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .method import Transform

if TYPE_CHECKING:
    import torch as torch
else:

    class _Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(import_module("torch"), name)

    torch = _Torch()


def in_torch(transform: Callable[[str, torch.Tensor], torch.Tensor]) -> Transform:
    """Return a transform of arrays from one of tensors, fp32 both."""
    return lambda name, delta: transform(name, torch.from_numpy(delta)).contiguous().numpy()
