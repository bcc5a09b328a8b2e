"""Detection of quantised weights, which cannot be edited."""

from collections.abc import Mapping
from typing import Any

from prosocial.core.errors import ArtefactError

from .folder import Checkpoint
from .header import BITS, TensorInfo

NUMBERS = frozenset(("F64", "F32", "F16", "BF16"))
CODES = frozenset(dtype for dtype, n_bits in BITS.items() if dtype.startswith("F") and n_bits <= 8)
SUFFIX_METHODS = {
    ".qweight": "GPTQ or AWQ (packed int4)",
    ".qzeros": "GPTQ or AWQ",
    ".g_idx": "GPTQ",
    ".scales": "GPTQ or AWQ",
    ".absmax": "bitsandbytes",
    ".quant_map": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_scale": "fp8",
    ".weight_scale_inv": "fp8",
    ".input_scale": "fp8",
    ".weight_packed": "compressed-tensors (packed int4)",
    "_blocks": "mxfp4",
}
# What the elements of a dtype are, where the dtype's own name does not say it.
CODE_NAMES = {
    "F4": "fp4",
    "F6_E2M3": "fp6",
    "F6_E3M2": "fp6",
    "U8": "codes of 8 bits, or two of 4 bits in each",
    "I32": "packed codes",
}


def quantisation_evidence(checkpoint: Checkpoint) -> str | None:
    """Return what in the config or the tensors shows that a checkpoint is quantised; None if it is not quantised."""
    return _config_evidence(checkpoint.config) or next(
        filter(None, map(_tensor_evidence, checkpoint.tensors.values())), None
    )


def refuse_quantised(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint is not quantised.

    Raises:
        ArtefactError: the config or a tensor shows quantisation (the message names the method and the remedy).
    """
    evidence = quantisation_evidence(checkpoint)
    if evidence:
        raise ArtefactError(
            f"{checkpoint.folder} should hold plain floating-point weights, found {evidence}: "
            "edit the unquantised parent, then quantise the result"
        )


def _config_evidence(config: Mapping[str, Any]) -> str | None:
    for owner in (config, config.get("text_config")):
        settings = owner.get("quantization_config") if isinstance(owner, Mapping) else None
        if settings:
            method = settings.get("quant_method", "an unnamed method") if isinstance(settings, Mapping) else settings
            return f"quantization_config of {method} in config.json"
    return None


def _tensor_evidence(tensor: TensorInfo) -> str | None:
    if "quant_state.bitsandbytes" in tensor.name:
        return f"tensor {tensor.name} of bitsandbytes"
    for suffix, method in SUFFIX_METHODS.items():
        if tensor.name.endswith(suffix):
            return f"tensor {tensor.name} of {method}"
    coded = tensor.dtype in CODES or (tensor.name.endswith(".weight") and tensor.dtype not in NUMBERS)
    name = CODE_NAMES.get(tensor.dtype)
    return f"tensor {tensor.name} in {tensor.dtype}" + (f" ({name})" if name else "") if coded else None
