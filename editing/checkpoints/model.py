"""A checkpoint as a transformers model: safetensors only, no remote code, and no missing weight filled at random."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM

from prosocial.core.errors import ArtefactError

from .folder import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What from_pretrained can raise if config and weights do not fit each other.
LOADING_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    StrictDataclassError,
)


def load_model(
    folder: Path | str, *, dtype: torch.dtype | None = torch.float32, device: torch.device | str = "cpu"
) -> "PreTrainedModel":
    """Load a causal language model in eval mode.

    Args:
        folder: a local model folder (see `resolve_model` for Hub ids).
        dtype: dtype to load the weights in; None keeps the dtypes of the files.
        device: the device for the weights.

    Raises:
        ArtefactError: the folder is not a checkpoint, transformers cannot build the model without remote code, or a
            weight is missing or has another shape (transformers would fill it with random numbers).
    """
    checkpoint = Checkpoint.open(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(checkpoint.folder),
            dtype="auto" if dtype is None else dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except LOADING_ERRORS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ArtefactError(
            f"{folder} should load as a causal language model of transformers: {reason:.300}"
        ) from error
    model, loading = loaded
    _check_loaded(checkpoint.folder, loading)
    ready: PreTrainedModel = model.eval().to(device)
    return ready


def _check_loaded(folder: Path, loading: dict[str, Any]) -> None:
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ArtefactError(
            f"{folder} should hold every weight of the model: {len(missing)} missing, such as {missing[0]!r}; save the "
            "model again"
        )
    mismatched = sorted(str(item) for item in loading["mismatched_keys"])
    if mismatched or loading.get("error_msgs"):
        detail = (mismatched or list(loading["error_msgs"]))[0]
        raise ArtefactError(f"{folder} should hold weights of the shapes in its config: {detail:.300}")
