"""LoRA of bare parameters, such as fused experts (`target_parameters` of peft 0.21, `ParamWrapper`).

delta[e] = scale * B[:, :, e] @ A[e] for each expert e, or its transpose if the module says `is_transposed`. peft nests
the wrappers of one module's parameters: `base_layer` in a key is the wrapper of the parameter before. If the base
stores each expert apart, the conversion with which transformers saves the model divides the delta.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from prosocial.core.errors import ArtefactError

from ...checkpoints.folder import Checkpoint
from ...checkpoints.header import TensorInfo
from ...checkpoints.renaming import empty_model
from ...checkpoints.tensors import FLOATS, read_tensor_fp32
from ..adapter_config import AdapterConfig

WRAPPED = ".base_layer"
FACTORS = ("down", "up")


@dataclass(frozen=True)
class Parameter:
    """A parameter of the loaded model that an adapter changes.

    Attributes:
        name: name in the loaded model.
        shape: (n_experts, n_out, n_in), (n_experts, n_in, n_out) if `transposed`, or (n_out, n_in).
        transposed: whether each expert's matrix is stored as [in, out].
    """

    name: str
    shape: tuple[int, ...]
    transposed: bool

    @property
    def n_experts(self) -> int:
        """Number of matrices that the parameter stacks."""
        return self.shape[0] if len(self.shape) == 3 else 1

    @property
    def is_stacked(self) -> bool:
        """Whether its factors are other than those of a linear layer's weight."""
        return len(self.shape) == 3 or not self.name.endswith(".weight")

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes that A and B have for a rank per expert."""
        n_out, n_in = self.shape[:-3:-1] if self.transposed else self.shape[-2:]
        return (rank * self.n_experts, n_in), (n_out, rank * self.n_experts)

    def delta(self, down: torch.Tensor, up: torch.Tensor, scale: float) -> torch.Tensor:
        """Return what merging adds, in the parameter's shape, with the order of operations of peft.

        Args:
            down: A, [n_experts * rank, in] fp32.
            up: B, [out, rank * n_experts] fp32.
            scale: scale of the products.
        """
        if self.n_experts == 1:
            product = (up @ down) * scale  # [out, rank] @ [rank, in]
            return (product.T if self.transposed else product).reshape(self.shape)
        a = down.reshape(self.n_experts, -1, down.shape[-1])  # [e, r, i]
        b = up.reshape(len(up), -1, self.n_experts)  # [o, r, e]
        return torch.einsum("ore,eri->eio" if self.transposed else "ore,eri->eoi", b, a) * scale


def targeted_parameters(model: PreTrainedModel, targets: Collection[str]) -> dict[str, Parameter]:
    """Return the parameters that `target_parameters` names, by the module's name in the keys of an adapter.

    Args:
        model: the model, which may be without weights.
        targets: full names of parameters, or their ends from a whole part on.
    """
    return {
        name + WRAPPED * depth: parameter
        for name, module in model.named_modules()
        for depth, parameter in enumerate(reversed(list(_targeted(name, module, targets))))
    }


def _targeted(name: str, module: nn.Module, targets: Collection[str]) -> Iterator[Parameter]:
    transposed = bool(getattr(module, "is_transposed", False))
    for end, parameter in module.named_parameters(recurse=False):
        full = f"{name}.{end}"
        if parameter.ndim in (2, 3) and f".{full}".endswith(tuple(f".{target}" for target in targets)):
            yield Parameter(full, tuple(parameter.shape), transposed and parameter.ndim == 3)


class Stacks:
    """The stacks of weights and biases that one adapter changes, divided into the tensors that the base stores.

    Args:
        base: the checkpoint that the adapter was trained on.
        config: the adapter's config.
        file: its weights, for errors.
    """

    def __init__(self, base: Checkpoint, config: AdapterConfig, file: Path) -> None:
        self._base, self._config, self._file = base, config, file
        self._parts: dict[str, dict[str, TensorInfo]] = defaultdict(dict)
        self._modules: dict[str, str] = {}
        self._lock, self._cached = Lock(), ("", dict[str, torch.Tensor]())

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter that the adapter's config targets, by the module's name in the adapter's keys."""
        return targeted_parameters(self._model, self._config.parameters) if self._config.parameters else {}

    def add(self, module: str, part: str, tensor: TensorInfo) -> None:
        """Take a factor ("down" or "up") of a parameter."""
        self._parts[module][part] = tensor

    def close(self) -> list[str]:
        """Check all factors and return the names of the base's tensors that they change.

        Raises:
            ArtefactError: a factor is missing or does not fit, or the base stores its experts in another form.
        """
        for module, parts in self._parts.items():
            self._check(self.parameters[module], {part: tensor.shape for part, tensor in parts.items()})
        for owner in sorted({self._owner(module) for module in self._parts}):
            empty = {
                self.parameters[module].name: torch.empty(self.parameters[module].shape, device="meta")
                for module in self._of(owner)
            }
            for name, tensor in self._stored(empty).items():
                self._check_stored(name, tuple(tensor.shape), owner)
                self._modules[name] = owner
        return list(self._modules)

    def delta(self, name: str) -> torch.Tensor:
        """Return what merging adds to a tensor of the base; the products of one module are kept for the next call."""
        owner = self._modules[name]
        with self._lock:  # several threads read the tensors of one module
            if self._cached[0] != owner:
                self._cached = owner, self._stored(dict(map(self._product, self._of(owner))))
            return self._cached[1][name].clone()

    def _product(self, module: str) -> tuple[str, torch.Tensor]:
        parameter, parts = self.parameters[module], self._parts[module]
        down, up = (read_tensor_fp32(parts[part]) for part in FACTORS)
        return parameter.name, parameter.delta(down, up, self._config.scale(parameter.name))

    def _of(self, owner: str) -> list[str]:
        return [module for module in self._parts if self._owner(module) == owner]

    def _owner(self, module: str) -> str:
        return self.parameters[module].name.rpartition(".")[0]

    @cached_property
    def _model(self) -> PreTrainedModel:
        return empty_model(self._base)

    def _stored(self, loaded: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return tensors of the loaded model under the names and in the shapes in which the base stores them."""
        if set(loaded) <= set(self._base.tensors):
            return dict(loaded)
        converted = revert_weight_conversion(self._model, dict(loaded))
        return {self._base_name(name): tensor for name, tensor in converted.items()}

    def _base_name(self, name: str) -> str:
        """Return the base's name of a tensor; a base saved without its head lacks the first component of the name."""
        shorter = name.partition(".")[2]
        return shorter if shorter in self._base.tensors and name not in self._base.tensors else name

    def _check(self, parameter: Parameter, shapes: Mapping[str, tuple[int, ...]]) -> None:
        expected = dict(zip(FACTORS, parameter.factor_shapes(self._config.expected_rank(parameter.name)), strict=True))
        if shapes != expected:
            raise ArtefactError(
                f"{self._file} should hold factors of shapes {expected['down']} and {expected['up']} for "
                f"{parameter.name} {parameter.shape}, found {', '.join(map(str, shapes.values()))}; give the base that "
                "the adapter was trained on"
            )

    def _check_stored(self, name: str, shape: tuple[int, ...], owner: str) -> None:
        tensor = self._base.tensors.get(name)
        if tensor is None or tensor.shape != shape or tensor.dtype not in FLOATS:
            actual = f"found {tensor.dtype} {tensor.shape}" if tensor else "there is none"
            raise ArtefactError(
                f"{self._base.folder} should hold {name} {shape} in {', '.join(FLOATS)} for {owner}, {actual}; save "
                "the base again with the current transformers, or merge the adapter and give the merged checkpoint"
            )
