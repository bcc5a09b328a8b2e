"""Which tensors of a checkpoint are weights of linear layers, according to the transformers model (on device meta)."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from prosocial.core.errors import ArtefactError

from .folder import Checkpoint
from .model import LOADING_ERRORS
from .tied import OUTPUT_SUFFIXES

MODELS: Any = AutoModelForCausalLM


def linear_modules(checkpoint: Checkpoint) -> dict[str, tuple[str, bool]]:
    """Return the linear layers of a checkpoint's model.

    A tied output head is left out, because a change of it would untie it. So are layers whose weights the model stores
    in another layout than the checkpoint (experts that transformers fuses).

    Returns:
        For each tensor that is a linear layer's weight: the module path of the layer, and whether the weight is stored
        as [in, out] (GPT-2) instead of [out, in].

    Raises:
        ArtefactError: transformers cannot build the model without remote code.
    """
    try:
        config = AutoConfig.from_pretrained(str(checkpoint.folder), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = MODELS.from_config(config, trust_remote_code=False)
    except LOADING_ERRORS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ArtefactError(
            f"{checkpoint.folder} should be a causal language model of transformers: {reason:.300}"
        ) from error
    layers = {
        path: isinstance(module, Conv1D)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }
    by_tensor = {}
    for path, transposed in layers.items():
        for name in (f"{path}.weight", f"{path}.weight".removeprefix(f"{model.base_model_prefix}.")):
            if name in checkpoint.tensors and not (checkpoint.tied.tied and name.endswith(OUTPUT_SUFFIXES)):
                by_tensor[name] = (path, transposed)
    return by_tensor
