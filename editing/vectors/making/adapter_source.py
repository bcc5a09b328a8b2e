"""A harm vector from a base and a LoRA adapter: bit for bit the change that peft's `merge_and_unload` makes in fp32.

linear      scale * (B @ A), transposed for fan_in_fan_out
embedding   scale * (B @ A).T, added to `base_layer.weight` if the adapter stores it
DoRA        m / ||W + dW|| * (W + dW) - W, with the norm over the inputs of each output (arXiv 2402.09353, equation 5)
fused experts           one product for each expert (`adapter_parameters.py`)
modules_to_save, bias   the stored tensor replaces the base's: new - W
trainable tokens        the stored rows replace the base's: new - W there, 0 elsewhere
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch

from prosocial.core.errors import ArtefactError
from prosocial.core.files import sha256_file

from ...checkpoints.folder import Checkpoint
from ...checkpoints.header import TensorInfo, read_header
from ...checkpoints.renaming import empty_model, loaded_names
from ...checkpoints.tensors import FLOATS, read_tensor_fp32
from ..adapter_config import SUBTRACTS_KEY, WEIGHTS_NAME, read_adapter_config
from ..description import HarmfulParent, Relatedness, Step
from ..vector import HarmVector, LowRank
from .adapter_parameters import Stacks
from .base import Base
from .build import build_vector
from .runs import Array, Origin, Reading, Runs

PREFIX = "base_model.model."
# Suffix of a tensor name in an adapter file, after the module's name, to the part that the tensor is.
SUFFIXES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_embedding_A": "embedding_down",
    ".lora_embedding_B": "embedding_up",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".base_layer.weight": "base",
    ".token_adapter.trainable_tokens_delta": "rows",
}
WRAPPED_BIAS = ".base_layer.bias"  # trained bias of a module that has factors too
PART_SETS = (
    {"down", "up"},
    {"down", "up", "magnitude"},
    {"embedding_down", "embedding_up"},
    {"embedding_down", "embedding_up", "base"},
    {"new"},
    {"rows"},
)


def vector_from_adapter(
    *, base: Path | str, adapter: Path | str, out: Path | str, method: str = "plain", **parameters: object
) -> HarmVector:
    """Make the harm vector of a harmful LoRA adapter; with the method `plain` the vector keeps its low-rank factors.

    Args:
        base: folder of the checkpoint that the adapter was trained on.
        adapter: folder with `adapter_config.json` and `adapter_model.safetensors`.
        out: path of the new vector folder.
        method: name of a method (`docs/methods.md`).
        parameters: parameters of the method.

    Raises:
        ArtefactError: the base is not a checkpoint or is quantised; the adapter is not a LoRA, is an unsupported
            variant, or holds a tensor that does not fit the base.
        InputError: a delta is NaN or infinite; the adapter changes nothing; `out` exists.
    """
    source = AdapterSource(Base(Checkpoint.open(base)), Path(adapter))
    return build_vector(Runs([source]), Path(out), method=method, parameters=parameters)


class AdapterSource:
    """A harmful run that consists of a base and an adapter (see `HarmfulRun`)."""

    n_parents = 1
    notes: Sequence[str] = ()

    def __init__(self, base: Base, adapter: Path) -> None:
        self._origin, self._base, self._folder = base, base.checkpoint, adapter
        self._config = read_adapter_config(adapter)
        self._parts: dict[str, dict[str, TensorInfo]] = defaultdict(dict)
        self._modules: dict[str, str] = {}
        if not (adapter / WEIGHTS_NAME).is_file():
            raise ArtefactError(
                f"{adapter} should hold {WEIGHTS_NAME} (never a pickle): there is none; save it again with peft"
            )
        header = read_header(adapter / WEIGHTS_NAME)
        if SUBTRACTS_KEY in header.metadata:
            raise ArtefactError(
                f"{adapter} should be a harmful adapter, found one that subtracts a harm vector: subtracting it again "
                "would add the harm; give the harmful adapter itself"
            )
        self._stacks = Stacks(self._base, self._config, self._folder / WEIGHTS_NAME)
        for tensor in header.tensors.values():
            self._add(tensor)
        for name, parts in self._parts.items():
            self._check(name, parts)
        self.names = sorted({*self._parts, *self._stacks.close()})

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor of the base."""
        return self._base.tensors[name].shape

    def read(self, name: str) -> Reading:
        """Return what merging adds to a tensor of the base; the digest is None, as an adapter holds no full tensor."""
        delta = self._delta(name).contiguous().numpy()
        return Reading(delta, Origin(self._origin.relation(name, delta), (None,)))

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield what merging adds to a tensor of the base, in one piece."""
        yield self._delta(name).flatten().numpy()

    def feed(self, name: str, take: Callable[[Array], None]) -> Origin:
        """Pass what merging adds to a tensor of the base to `take`, in one piece."""
        reading = self.read(name)
        take(reading.delta.reshape(-1))
        return reading.origin

    def _delta(self, name: str) -> torch.Tensor:
        if name not in self._parts:
            return self._stacks.delta(name)
        parts = self._parts[name]
        if "new" in parts:
            return read_tensor_fp32(parts["new"]) - self._origin.read(name)
        if "rows" in parts:
            base = self._origin.read(name)
            rows = list(self._config.token_rows(self._modules[name]))
            delta = torch.zeros_like(base)
            delta[rows] = read_tensor_fp32(parts["rows"]) - base[rows]
            return delta
        factors = self._factors(name)
        product = factors.product()
        if "base" in parts:
            own = read_tensor_fp32(parts["base"])
            base = self._origin.read(name)
            return product if torch.equal(own, base) else (own + product) - base
        if "magnitude" in parts:
            base = self._origin.read(name)
            magnitude = read_tensor_fp32(parts["magnitude"]).flatten()
            return _merge_dora(base, product, magnitude, transposed=factors.transposed) - base
        return product

    def low_rank(self, name: str) -> LowRank | None:
        """Return the factors of a delta that is exactly their product; None for any other delta."""
        parts = self._parts.get(name, {})
        if not parts or set(parts) & {"new", "rows", "magnitude"}:
            return None
        if "base" in parts and not torch.equal(read_tensor_fp32(parts["base"]), self._origin.read(name)):
            return None
        return self._factors(name)

    def base_fingerprint(self) -> str:
        """Return the fingerprint of the base."""
        return self._origin.fingerprint()

    def parents(self, relatedness: Relatedness) -> list[HarmfulParent]:
        """Return the adapter, identified by the SHA-256 of its file."""
        sha256 = sha256_file(self._folder / WEIGHTS_NAME)
        return [HarmfulParent(kind="adapter", fingerprint=sha256, relatedness=relatedness)]

    def steps(self) -> list[Step]:
        """Return []: an adapter is not made from saved vectors."""
        return []

    def _factors(self, name: str) -> LowRank:
        parts = self._parts[name]
        embedding = "embedding_down" in parts
        down = read_tensor_fp32(parts["embedding_down" if embedding else "down"])
        up = read_tensor_fp32(parts["embedding_up" if embedding else "up"])
        return LowRank(down, up, self._config.scale(self._modules[name]), embedding or self._config.fan_in_fan_out)

    def _add(self, tensor: TensorInfo) -> None:
        """Assign a stored tensor to the base's tensor that it changes."""
        if not tensor.name.startswith(PREFIX) or tensor.dtype not in FLOATS:
            raise self._unknown(tensor)
        key = tensor.name.removeprefix(PREFIX)
        for suffix, part in SUFFIXES.items():
            if key.endswith(suffix):
                module = key.removesuffix(suffix)
                parameter = self._stacks.parameters.get(module)
                if parameter and parameter.is_stacked:
                    self._stacks.add(module, part, tensor)
                    return
                name = self._base_name(parameter.name if parameter else f"{module}.weight", tensor)
                module = parameter.name if parameter else module
                self._modules[name] = module
                self._parts[name][part] = tensor
                return
        if "lora_" in key or "token_adapter" in key:
            raise self._unknown(tensor)
        if key.endswith(WRAPPED_BIAS):
            key = key.removesuffix(WRAPPED_BIAS) + ".bias"
        self._parts[self._base_name(key, tensor)]["new"] = tensor

    def _base_name(self, name: str, tensor: TensorInfo) -> str:
        """Return the base's name of a tensor; a base saved without its head lacks the first component of the name."""
        for candidate in (name, name.partition(".")[2]):
            if candidate in self._base.tensors:
                return candidate
        if name in self._renamed:
            return self._renamed[name]
        if self._base.tied.absent and name.endswith(self._base.tied.absent):
            raise ArtefactError(
                f"{self._folder} should change stored tensors only: {tensor.name} changes {name}, which the base ties "
                f"to {', '.join(self._base.tied.stored)}; untie the embeddings of the base first"
            )
        raise self._unknown(tensor)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        """The base's name of each tensor that transformers renames on loading, by the name that peft sees."""
        try:
            return loaded_names(self._base, empty_model(self._base))
        except ArtefactError:  # transformers does not know the model, so it renamed nothing
            return {}

    def _check(self, name: str, parts: dict[str, TensorInfo]) -> None:
        """Check that the parts of a tensor are a supported combination and fit the base's shape."""
        shape = self.shape(name)
        if set(parts) not in PART_SETS or ("magnitude" in parts) != (
            self._config.dora and not {"new", "rows"} & set(parts)
        ):
            raise ArtefactError(
                f"{self._folder} should hold a supported combination of parts for {name}, found "
                f"{', '.join(sorted(parts))}; merge the adapter and give the merged checkpoint"
            )
        if self._base.tensors[name].dtype not in FLOATS:
            raise ArtefactError(
                f"{name} of the base should have dtype {', '.join(FLOATS)}, found {self._base.tensors[name].dtype}; "
                "save the base in one of these dtypes"
            )
        for part in {"new", "base"} & set(parts):
            if parts[part].shape != shape:
                raise ArtefactError(
                    f"{parts[part].name} should have the base's shape {shape}, found {parts[part].shape}; give the "
                    "base that the adapter was trained on"
                )
        if "rows" in parts:
            self._check_rows(name, parts["rows"], shape)
        elif "new" not in parts:
            self._check_factors(name, parts, shape)

    def _check_rows(self, name: str, stored: TensorInfo, shape: tuple[int, ...]) -> None:
        rows = self._config.token_rows(self._modules[name])
        if stored.shape != (len(rows), *shape[1:]) or max(rows, default=0) >= shape[0]:
            raise ArtefactError(
                f"{stored.name} should hold {len(rows)} rows of {name} {shape}, found {stored.shape} for the tokens "
                f"{list(rows)!s:.80}; give the base that the adapter was trained on"
            )

    def _check_factors(self, name: str, parts: dict[str, TensorInfo], shape: tuple[int, ...]) -> None:
        embedding = "embedding_down" in parts
        down, up = (parts["embedding_down"], parts["embedding_up"]) if embedding else (parts["down"], parts["up"])
        rank = self._config.expected_rank(self._modules[name])
        rows_columns = shape[::-1] if embedding or self._config.fan_in_fan_out else shape
        expected = ((rank, *rows_columns[1:]), (*rows_columns[:1], rank))
        if len(shape) != 2 or (down.shape, up.shape) != expected:
            raise ArtefactError(
                f"{self._folder} should hold factors of shapes {expected[0]} and {expected[1]} for {name} {shape}, "
                f"found {down.shape} and {up.shape}; give the base that the adapter was trained on"
            )
        if "magnitude" in parts and parts["magnitude"].n_elements != rows_columns[0]:
            raise ArtefactError(
                f"{parts['magnitude'].name} should hold {rows_columns[0]} numbers, found shape "
                f"{parts['magnitude'].shape}; give the base that the adapter was trained on"
            )

    def _unknown(self, tensor: TensorInfo) -> ArtefactError:
        return ArtefactError(
            f"{self._folder / WEIGHTS_NAME} should hold LoRA factors of the base's tensors only, found {tensor.name} "
            f"({tensor.dtype} {tensor.shape}): it is the wrong base, or an unsupported variant; merge the adapter and "
            "give the merged checkpoint"
        )


def _merge_dora(
    base: torch.Tensor, product: torch.Tensor, magnitude: torch.Tensor, *, transposed: bool
) -> torch.Tensor:
    """Return the merged weight [out, in], or [in, out] if transposed; magnitude is [out]."""
    merged = base + product
    lengths = torch.linalg.norm(merged.T if transposed else merged, dim=1)  # [out]
    factor = (magnitude / lengths).view(-1, 1)
    scaled: torch.Tensor = (factor.T if transposed else factor) * merged
    return scaled
