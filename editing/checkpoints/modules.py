"""Which tensors of a checkpoint are weights of linear layers, asked of the transformers model itself (built empty)."""

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
    """Return, by tensor, the path of the linear layer whose weight it is, and whether it is stored [in, out] (GPT-2).

    An output head that is tied is left out: whoever changes it would untie it. So are layers that the model holds
    otherwise than the checkpoint (experts that transformers fuses).

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
    found = {}
    for path, transposed in layers.items():
        for name in (f"{path}.weight", f"{path}.weight".removeprefix(f"{model.base_model_prefix}.")):
            if name in checkpoint.tensors and not (checkpoint.tied.tied and name.endswith(OUTPUT_SUFFIXES)):
                found[name] = (path, transposed)
    return found
