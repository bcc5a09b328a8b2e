"""Intermediate values of the reference in the order of the forward pass (torch)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from prosocial.export.graph.wrapper import layers_of
from prosocial.steering.backbone import Backbone


@torch.inference_mode()
def torch_points(backbone: Backbone, ids: Sequence[int]) -> dict[str, NDArray[np.float32]]:
    """Return the value at each point of one pass by the names that `GraphPoints` uses.

    The keys and values of a layer follow its first norm, from whose output they are computed.
    """
    seen: dict[str, NDArray[np.float32]] = {}
    hooks = [
        module.register_forward_hook(_recorder(seen, name))
        for name, module in backbone.model.named_modules()
        if "norm" in type(module).__name__.lower()
    ]
    cache = DynamicCache()
    try:
        backbone.hidden(torch.tensor([list(ids)], device=backbone.device), past_key_values=cache)
    finally:
        for hook in hooks:
            hook.remove()
    layers = layers_of(cache)
    ordered: dict[str, NDArray[np.float32]] = {}
    for name, value in seen.items():
        ordered[name] = value
        layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
        if layer is not None and f"{layer}.key" not in ordered and layer < len(layers):
            ordered |= _pair(layer, layers[layer])
    for layer, pair in enumerate(layers):  # layers without norm modules
        ordered |= {} if f"{layer}.key" in ordered else _pair(layer, pair)
    return ordered


def _recorder(seen: dict[str, NDArray[np.float32]], name: str) -> Any:
    def record(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            seen[name] = _array(output)

    return record


def _pair(layer: int, pair: tuple[torch.Tensor, torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    return {f"{layer}.{kind}": _array(value) for kind, value in zip(("key", "value"), pair, strict=True)}


def _array(value: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value[0].detach().float().cpu().numpy()
    return array
