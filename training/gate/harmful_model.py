"""The harmful model that the gate's training compares with: a checkpoint, or a LoRA adapter over its base."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from prosocial.core.errors import InputError
from prosocial.editing.checkpoints import load_model

ADAPTER_CONFIG = "adapter_config.json"


def load_harmful(
    harmful: Path | str, *, base: Path | str | None, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Load a harmful model; an adapter is merged into its base in memory only.

    Args:
        harmful: folder of a checkpoint, or of a LoRA adapter as peft saves it.
        base: folder of the checkpoint that the adapter was trained on; not needed for a checkpoint.
        dtype: dtype of the weights in memory.

    Raises:
        InputError: an adapter without a base.
    """
    require_base(harmful, base)
    if base is None or not _is_adapter(harmful):
        return load_model(harmful, dtype=dtype)
    from peft import PeftModel

    adapted: Any = PeftModel.from_pretrained(load_model(base, dtype=dtype), str(harmful))
    merged: PreTrainedModel = adapted.merge_and_unload().eval()
    return merged


def require_base(harmful: Path | str, base: Path | str | None) -> None:
    """Raise InputError where an adapter is given without the base that it was trained on."""
    if _is_adapter(harmful) and base is None:
        raise InputError(f"{harmful} is an adapter: give the base that it was trained on too")


def _is_adapter(folder: Path | str) -> bool:
    return (Path(folder) / ADAPTER_CONFIG).is_file()
