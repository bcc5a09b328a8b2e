"""The check that float16 holds a model's activations, with torch, which rounds after every operation as a GPU does."""

from typing import Any

import torch
from torch import Tensor

from prosocial.core.errors import InputError
from prosocial.steering.backbone import Backbone

ADVICE = "use --precision fp32, or int8 with profile ort"


@torch.no_grad()
def convert_to_float16(backbone: Backbone, ids: Tensor) -> None:
    """Convert a model's weights to float16 in place, and check them and its activations on tokens [B, S].

    Raises:
        InputError: a weight or an activation exceeds 65,504, the largest float16 number.
    """
    model: Any = backbone.model
    name = type(model).__name__
    model.to(torch.float16)
    broken = [key for key, weight in model.named_parameters() if not bool(weight.isfinite().all())]
    if broken:
        raise InputError(
            f"the weights of {name} should be at most 65,504 in float16, found larger ones in {', '.join(broken[:3])}: "
            f"{ADVICE}"
        )
    first: list[str] = []

    def watch(place: str) -> Any:
        def note(module: object, given: object, output: object) -> None:
            state = output[0] if isinstance(output, tuple) and output else output
            if isinstance(state, Tensor) and not first and not bool(state.isfinite().all()):
                first.append(place)

        return note

    handles = [part.register_forward_hook(watch(place)) for place, part in model.named_modules() if place]
    try:
        is_finite = bool(backbone.logits(backbone.hidden(ids)).isfinite().all())
    finally:
        for handle in handles:
            handle.remove()
    if not is_finite:
        raise InputError(
            f"the activations of {name} should be at most 65,504 in float16, found infinity or NaN after "
            f"{first[0] if first else 'the output embedding'}: {ADVICE}"
        )
