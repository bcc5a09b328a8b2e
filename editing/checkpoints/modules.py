"""Which tensors of a checkpoint are weights of linear layers, according to the transformers model (on device meta)."""

import torch
from transformers.pytorch_utils import Conv1D

from .folder import Checkpoint
from .renaming import empty_model, loaded_names
from .tied import OUTPUT_SUFFIXES


def linear_modules(checkpoint: Checkpoint) -> dict[str, tuple[str, bool]]:
    """Return the linear layers of a checkpoint's model.

    A tied output head is left out, because a change of it would untie it. So are layers whose weights the model stores
    in another layout than the checkpoint (experts that transformers fuses).

    Returns:
        For each tensor that is a linear layer's weight: the module path of the layer in the loaded model, and whether
        the weight is stored as [in, out] (GPT-2) instead of [out, in].

    Raises:
        ArtefactError: transformers cannot build the model without remote code.
    """
    model = empty_model(checkpoint)
    stored = loaded_names(checkpoint, model)
    layers = {
        path: isinstance(module, Conv1D)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and f"{path}.weight" in stored
    }
    by_tensor = {stored[f"{path}.weight"]: (path, transposed) for path, transposed in layers.items()}
    tied = {name for name in by_tensor if checkpoint.tied.tied and name.endswith(OUTPUT_SUFFIXES)}
    return {name: place for name, place in by_tensor.items() if name not in tied}
