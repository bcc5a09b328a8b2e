"""A checkpoint as a transformers model: safetensors only, no remote code, and no missing weight filled at random."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM

from prosocial.core.batches import free_bytes
from prosocial.core.cores import is_out_of_memory
from prosocial.core.errors import ArtefactError, MissingExtraError

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

SHARE_FOR_WEIGHTS = 0.9  # of a device's free memory; the rest is for activations and the key/value cache


def load_model(
    folder: Path | str, *, dtype: torch.dtype | None = torch.float32, device: torch.device | str = "cpu"
) -> "PreTrainedModel":
    """Load a causal language model in eval mode.

    A model that does not fit into the free memory of an accelerator is spread by accelerate over all accelerators and
    the CPU; layers that lie on the CPU are copied to the first accelerator whenever they compute.

    Args:
        folder: a local model folder (see `resolve_model` for Hub ids).
        dtype: dtype to load the weights in; None keeps the dtypes of the files.
        device: the device for the weights.

    Raises:
        ArtefactError: the folder is not a checkpoint, transformers cannot build the model without remote code, or a
            weight is missing or has another shape (transformers would fill it with random numbers).
        MissingExtraError: the model has to be spread, and accelerate is not installed.
    """
    checkpoint = Checkpoint.open(folder)
    placing = _placing(checkpoint, dtype, torch.device(device))
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(checkpoint.folder),
            dtype="auto" if dtype is None else dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **placing,
        )
    except LOADING_ERRORS as error:
        if is_out_of_memory(error):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ArtefactError(
            f"{folder} should load as a causal language model of transformers: {reason:.300}"
        ) from error
    model, loading = loaded
    _check_loaded(checkpoint.folder, loading)
    ready: PreTrainedModel = model.eval()
    return ready if is_placed(ready) else ready.to(device)  # type: ignore[arg-type]  # of transformers


def is_placed(model: "PreTrainedModel") -> bool:
    """Return whether accelerate has placed a model's parts, so that it must not be moved as a whole."""
    return bool(getattr(model, "hf_device_map", None))


def _placing(checkpoint: Checkpoint, dtype: torch.dtype | None, device: torch.device) -> dict[str, Any]:
    """Return the arguments that load weights straight onto an accelerator, spread over several if they do not fit.

    Raises:
        MissingExtraError: the weights do not fit into the device's memory, and accelerate is not installed.
    """
    if device.type == "cpu":
        return {}
    n_bytes = checkpoint.size_bytes if dtype is None else checkpoint.n_parameters * dtype.itemsize
    fits = n_bytes <= SHARE_FOR_WEIGHTS * free_bytes(device)
    if find_spec("accelerate") is not None:
        return {"device_map": {"": device} if fits else "auto"}
    if not fits:
        raise MissingExtraError("accelerate, which spreads a model that is larger than its device,", "train")
    return {}


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
