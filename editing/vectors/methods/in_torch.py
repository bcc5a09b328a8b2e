"""Methods that compute with torch, behind the arrays that all methods take and return; they share memory."""

from collections.abc import Callable

import torch

from .method import Transform


def in_torch(transform: Callable[[str, torch.Tensor], torch.Tensor]) -> Transform:
    """Return a transform of arrays from one of tensors, fp32 both."""
    return lambda name, delta: transform(name, torch.from_numpy(delta)).contiguous().numpy()
