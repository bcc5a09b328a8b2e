"""Records the largest tensor that is made inside a `with` block, to show that none of some size is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Counts the elements of every new tensor, in forward and backward passes on the CPU; views are not new.

    Attributes:
        numel: elements of the largest one.
        made_by: the operation that made it and its shape.

    Examples:
        >>> with LargestTensor() as largest:
        ...     _ = torch.ones(3, 4).t() @ torch.ones(3, 2)
        >>> largest.numel, largest.made_by
        (12, 'aten.ones.default [3, 4]')
    """

    def __init__(self) -> None:
        super().__init__()
        self.numel, self.made_by = 0, "nothing"

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        given = {_storage(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor) and tensor.numel() > self.numel and _storage(tensor) not in given:
                self.numel, self.made_by = tensor.numel(), f"{func} {list(tensor.shape)}"
        return results


def _storage(tensor: Tensor) -> int:
    """Return what tells one tensor's memory from another's."""
    return int(tensor.untyped_storage()._cdata)
