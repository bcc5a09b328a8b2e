"""The weights of a GGUF file as safetensors, one at a time: no model is filled, so memory depends on the largest."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prosocial.core.errors import InputError

from ..checkpoints.writer import TensorWriter
from .header import GgufHeader, GgufTensor
from .settings import ROPE_FACTORS
from .values import PIECE, dequantised

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


class WeightPlan:
    """Which tensors of a file make which weight of a transformers model; every tensor and every weight has its place.

    Args:
        header: the file's header.
        config: the model's config; its `architectures` are set to the model's class.

    Raises:
        ArtefactError: a tensor of the file has no place, or a weight no tensor, or one has another size.
    """

    def __init__(self, header: GgufHeader, config: "PretrainedConfig") -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.modeling_gguf_pytorch_utils import (
            TENSOR_PROCESSORS,
            TensorProcessor,
            get_gguf_hf_weights_map,
        )

        from ..checkpoints.model import LOADING_ERRORS

        self._header = header
        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        except (*LOADING_ERRORS, ArithmeticError) as error:
            raise header.broken("settings of one model", f"{' '.join(str(error).split()):.300}") from None
        config.architectures = [type(model).__name__]
        tied = ("lm_head.weight",) if config.tie_word_embeddings else ()
        self.shapes = {name: tuple(each.shape) for name, each in model.state_dict().items() if name not in tied}
        processor: Any = TENSOR_PROCESSORS.get(header.pairs["general.architecture"], TensorProcessor)
        self._processor: Any = processor(config=config.to_dict())
        self._names: Mapping[str, str] = get_gguf_hf_weights_map(model, self._processor)
        self.parts = self._parts()

    def _parts(self) -> dict[str, list[GgufTensor]]:
        """Return the tensors of each weight: one, or both halves of a projection of experts."""
        parts, placeless = defaultdict[str, list[GgufTensor]](list), []
        for tensor in self._header.tensors.values():
            name = self._names.get(tensor.name) or self._names.get(tensor.name.removesuffix(".weight"))
            if name is not None and name in self.shapes:
                parts[name].append(tensor)
            elif tensor.name != ROPE_FACTORS:
                placeless.append(tensor.name)
        missing = sorted(self.shapes.keys() - parts.keys())
        kind = f"the weights of {self._header.pairs['general.architecture']}"
        if placeless or missing:
            what = f"also {placeless[0]}" if placeless else f"nothing for {missing[0]}"
            raise self._header.broken(kind, f"{what} ({len(placeless)} tensors too many, {len(missing)} too few)")
        for name, tensors in parts.items():
            n_elements = sum(int(np.prod(each.shape, dtype=np.int64)) for each in tensors)
            if n_elements != int(np.prod(self.shapes[name], dtype=np.int64)):
                raise self._header.broken(f"{self.shapes[name]} as {tensors[0].name!r:.80}", f"{tensors[0].shape}")
        return dict(parts)

    def weight(self, name: str) -> "torch.Tensor":
        """Return one weight of the model in float32.

        Raises:
            ArtefactError: its shape is another one, or the type cannot be dequantised.
        """
        import torch

        gathered: dict[str, dict[str, torch.Tensor]] = {"tensors": {}}
        for tensor in self.parts[name]:
            made = self._processor.process(
                weights=dequantised(self._header, tensor),
                name=tensor.name,
                tensor_key_mapping=self._names,
                parsed_parameters=gathered,
            )
            if made.name is not None:
                gathered["tensors"][name] = torch.from_numpy(np.ascontiguousarray(made.weights))
        weight = gathered["tensors"][name]
        if tuple(weight.shape) != self.shapes[name]:
            raise self._header.broken(f"{self.shapes[name]} as {self.parts[name][0].name}", f"{tuple(weight.shape)}")
        return weight


def write_weights(plan: WeightPlan, file: Path, *, dtype: str, progress: Callable[[int, int], None] | None) -> None:
    """Write all weights to a safetensors file.

    Args:
        plan: the plan of the weights.
        file: the new file.
        dtype: name of the dtype to write, a key of `DTYPES`.
        progress: called with the bytes of the source that are done and their total.

    Raises:
        ArtefactError: a weight has another shape or a type that cannot be dequantised.
        InputError: a weight is not finite in this dtype.
    """
    done, total = 0, sum(tensor.size_bytes for tensors in plan.parts.values() for tensor in tensors)
    with TensorWriter(file, plan.shapes.items()) as writer:
        for name, tensors in plan.parts.items():
            writer.write(name, DTYPES[dtype], plan.shapes[name], *_stored(name, plan.weight(name), dtype))
            done += sum(tensor.size_bytes for tensor in tensors)
            if progress is not None:
                progress(done, total)
        writer.finish({"format": "pt"})


def _stored(name: str, weight: "torch.Tensor", dtype: str) -> Iterator[memoryview]:
    """Yield the raw bytes of a weight in a dtype, in pieces."""
    import torch

    for piece in weight.reshape(-1).split(PIECE):  # type: ignore[no-untyped-call]
        cast = piece.to(getattr(torch, dtype))
        n_wrong = cast.numel() - int(torch.isfinite(cast).sum())
        if n_wrong:
            raise InputError(
                f"{name} should hold numbers that are finite in {dtype}, {n_wrong:,} are not: choose another --dtype, "
                "or download the file again"
            )
        yield cast.view(torch.uint8).numpy().data
