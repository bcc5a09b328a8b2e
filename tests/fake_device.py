"""A second device in pure Python: its numbers are kept on the CPU, but it mixes with the CPU no more than CUDA does.

`install` makes the device `fake` the accelerator of the process for good: use it in a process of its own.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "fake"
BETWEEN_DEVICES = ("copy_", "_copy_from")
# CUDA takes indices that lie on the CPU.
TAKE_CPU_INDICES = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")
# Operators that torch calls below Python's own dispatch, or that would resize a tensor.
REGISTERED = (
    *("_copy_from", "empty.memory_format", "empty_strided", "eye", "eye.m", "randperm", "linspace"),
    *("arange", "arange.start", "arange.start_step"),
)
_fallbacks, _operators = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")


class OnDevice(Tensor):
    """A tensor on the device `fake`, whose numbers are those of a tensor on the CPU."""

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def of(cls, numbers: Tensor) -> "OnDevice":
        """Return a tensor on the device for one on the CPU."""
        with torch.inference_mode(mode=False):  # a view of an ordinary tensor must be one too
            made: OnDevice = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                numbers.size(),
                strides=numbers.stride(),
                storage_offset=numbers.storage_offset(),
                dtype=numbers.dtype,
                device=f"{NAME}:0",
            )
        made.numbers = numbers
        return made

    def tolist(self) -> Any:
        """Return the numbers, as from every device."""
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(
        cls, op: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator that is given a tensor on the device; one that consists of others is run as those."""
        parts = op.decompose(*args, **(kwargs or {}))
        return _run(op, *args, **(kwargs or {})) if parts is NotImplemented else parts


class Backend(_DummyBackendModule):
    """What torch asks a device for: a device without random numbers of its own, which autocasts to bfloat16."""

    def get_rng_state(self, device: object = None) -> Tensor:
        """Return the state of no generator."""
        return torch.zeros(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        """Keep nothing."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Return the dtypes of autocast."""
        return [torch.bfloat16]


def install() -> str:
    """Register the device and return its name."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    _fallbacks.fallback(_run, "PrivateUse1")  # operators that are given the device, but no tensor on it
    for name in REGISTERED:
        packet, _, overload = name.partition(".")
        _operators.impl(
            name, partial(_run, getattr(getattr(torch.ops.aten, packet), overload or "default")), "PrivateUse1"
        )
    return NAME


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator of torch on the numbers of its tensors."""
    name = op._schema.name.removeprefix("aten::")
    leaves, tree = tree_flatten((args, kwargs))
    if name == "_copy_from":
        _on_cpu(args[1]).copy_(_on_cpu(args[0]))
        return args[1]
    if name == "_to_copy":
        return _moved(op, *args, **kwargs)
    if name not in BETWEEN_DEVICES:
        _require_one_device(name, leaves)
    wrapper_of = {id(leaf.numbers): leaf for leaf in leaves if isinstance(leaf, OnDevice)}
    args, kwargs = tree_unflatten([_on_cpu(leaf) for leaf in leaves], tree)
    return tree_map(lambda leaf: _wrapped(leaf, wrapper_of), op(*args, **kwargs))


def _moved(op: Any, tensor: Tensor, *, device: torch.device | None = None, **others: Any) -> Tensor:
    """Return a tensor on another device, or in another dtype."""
    target = tensor.device if device is None else torch.device(device)
    numbers = op(_on_cpu(tensor), device=_on_cpu(target), **others)
    return OnDevice.of(numbers) if target.type == NAME else numbers


def _on_cpu(leaf: Any) -> Any:
    if isinstance(leaf, torch.device) and leaf.type == NAME:
        return torch.device("cpu")
    return leaf.numbers if isinstance(leaf, OnDevice) else leaf


def _wrapped(leaf: Any, wrapper_of: Mapping[int, OnDevice]) -> Any:
    """Return a result on the device; one that an operator changed in place is the tensor that was given."""
    if not isinstance(leaf, Tensor) or isinstance(leaf, OnDevice):
        return leaf
    return wrapper_of[id(leaf)] if id(leaf) in wrapper_of else OnDevice.of(leaf)


def _require_one_device(name: str, leaves: Sequence[Any]) -> None:
    strangers = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnDevice) and leaf.ndim]
    if strangers and name not in TAKE_CPU_INDICES:
        raise RuntimeError(f"{name} should have all tensors on {NAME}, one of shape {strangers[0].shape} is on the CPU")
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{name} should have a generator of {NAME}, it is one of the CPU")
