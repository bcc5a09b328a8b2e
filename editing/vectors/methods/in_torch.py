"""Support for methods that compute with torch, while all methods take and return numpy arrays.

Such methods import `torch` from here: it is loaded when a method computes, so listing the methods does not need torch.
Annotations must not load it either: a file with `torch.Tensor` in an annotation needs
`from __future__ import annotations`.
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
    """Wrap a transform of torch tensors as a transform of numpy arrays; both are fp32 and share memory."""
    return lambda name, delta: transform(name, torch.from_numpy(delta)).contiguous().numpy()
