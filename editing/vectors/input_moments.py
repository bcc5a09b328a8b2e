"""Second moments E[k k^T] of the inputs k of each linear layer, which show the directions that the inputs use."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import written_aside

from ..checkpoints.header import TensorInfo, read_header
from ..checkpoints.tensors import FLOATS, bytes_of, read_tensor_fp32
from ..checkpoints.writer import TensorWriter
from .folder import TRANSPOSED_KEY

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = "prosocial.input_moments/1"


@dataclass(frozen=True)
class InputMoments:
    """A file of second moments: one [in, in] tensor for each linear layer, under the name of the layer's weight.

    Attributes:
        file: path of the file.
        tensors: location of each second moment, by name of the weight.
        transposed: names of the weights that are stored as [in, out].
    """

    file: Path
    tensors: dict[str, TensorInfo]
    transposed: frozenset[str]

    @classmethod
    def open(cls, path: Path | str) -> "InputMoments":
        """Open a file of second moments by reading its header.

        Raises:
            ArtefactError: it is not a valid file of second moments.
        """
        file = Path(path)
        header = read_header(file)
        if header.metadata.get("schema") != FORMAT:
            raise ArtefactError(
                f"{file} should have schema {FORMAT} in its metadata, found {header.metadata.get('schema')!r}; "
                "make it with collect_input_moments"
            )
        for name, tensor in header.tensors.items():
            if len(tensor.shape) != 2 or tensor.shape[0] != tensor.shape[1] or tensor.dtype not in FLOATS:
                raise ArtefactError(
                    f"{file} should hold square floating-point matrices, found {name} {tensor.dtype} {tensor.shape}; "
                    "make it with collect_input_moments"
                )
        try:
            transposed = frozenset(json.loads(header.metadata.get(TRANSPOSED_KEY, "[]")))
        except (ValueError, TypeError, RecursionError):
            raise ArtefactError(
                f"{file} should list transposed weights as JSON in its metadata, found "
                f"{header.metadata.get(TRANSPOSED_KEY)!r:.80}; make it with collect_input_moments"
            ) from None
        return cls(file, dict(header.tensors), transposed)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the weights, sorted."""
        return tuple(sorted(self.tensors))

    def moment(self, name: str) -> torch.Tensor:
        """Return the second moment of a weight's inputs, [in, in] fp32.

        Raises:
            InputError: it has NaN or infinite elements.
        """
        moment = read_tensor_fp32(self.tensors[name])
        if not bool(torch.isfinite(moment).all()):
            raise InputError(
                f"{self.file} should hold finite numbers, found NaN or infinity in {name}; make it again with "
                "collect_input_moments"
            )
        return moment

    def check_fits(self, name: str, shape: tuple[int, ...]) -> None:
        """Check that a weight of this shape has as many inputs as its second moment.

        Raises:
            InputError: it has another number of inputs, or is not a matrix.
        """
        n_inputs = self.tensors[name].shape[0]
        if len(shape) != 2 or shape[0 if name in self.transposed else 1] != n_inputs:
            raise InputError(
                f"{self.file} should fit {name} of shape {shape}, found a second moment of {n_inputs} inputs; make it "
                "from a model of this architecture"
            )


def collect_input_moments(model: "PreTrainedModel", prompts: Iterable[Sequence[int]], out: Path) -> InputMoments:
    """Run benign prompts through a model and write the second moments of the inputs of its linear layers.

    A weight that is also an embedding is left out, because the embedding looks up its rows as well.

    Args:
        model: a model in eval mode: the base or a target of the vector.
        prompts: token ids of each prompt, at least one token.
        out: path of the new file.

    Raises:
        InputError: there is no prompt, or `out` exists.
        StorageError: the disk is full, or writing is not permitted.
    """
    if out.exists():
        raise InputError(f"{out} should not exist yet: choose another file or delete it first")
    sums: dict[str, tuple[torch.Tensor, int]] = {}
    maps = _linear_maps(model)
    with torch.no_grad(), ExitStack() as hooks:
        for name, module in maps.items():
            hooks.enter_context(_removing(module.register_forward_pre_hook(_adder(sums, name))))
        for prompt in prompts:
            model(torch.tensor([list(prompt)], device=model.device))
    if not sums:
        raise InputError("second moments should be collected from at least one prompt: there is none")
    _write(out, {name: total / n_tokens for name, (total, n_tokens) in sums.items()}, maps)
    return InputMoments.open(out)


def _linear_maps(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers by name of their weight; Conv1D of transformers is one with its weight as [in, out]."""
    from transformers.pytorch_utils import Conv1D

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and id(module.weight) not in embeddings
    }


def _adder(sums: dict[str, tuple[torch.Tensor, int]], name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        keys = inputs[0].flatten(0, -2).double()  # [tokens, in]
        moment = (keys.T @ keys).cpu()
        total, n_tokens = sums.get(name, (torch.zeros_like(moment), 0))
        sums[name] = (total + moment, n_tokens + len(keys))

    return add


def _removing(handle: Any) -> ExitStack:
    stack = ExitStack()
    stack.callback(handle.remove)
    return stack


def _write(out: Path, moments: dict[str, torch.Tensor], maps: dict[str, nn.Module]) -> None:
    transposed = [name for name in sorted(moments) if not isinstance(maps[name], nn.Linear)]
    listed = json.dumps(transposed)
    expected = [(name, tuple(moment.shape)) for name, moment in moments.items()]
    with written_aside(out) as aside, TensorWriter(aside, expected, metadata_bytes=4096 + 2 * len(listed)) as writer:
        for name, moment in sorted(moments.items()):
            writer.write(name, "F32", tuple(moment.shape), bytes_of(moment.float()))
        writer.finish({"schema": FORMAT, TRANSPOSED_KEY: listed})
