"""The harmful model that the gate's training compares with: a checkpoint, or a LoRA adapter over its base."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import read_json
from prosocial.editing.checkpoints import load_model
from prosocial.editing.vectors.adapter_config import CONFIG_NAME, WEIGHTS_NAME, read_adapter_config


def load_harmful(
    harmful: Path | str, *, base: Path | str | None, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> PreTrainedModel:
    """Load a harmful model; an adapter is merged into its base in memory only.

    Args:
        harmful: folder of a checkpoint, or of a LoRA adapter as peft saves it.
        base: folder of the checkpoint that the adapter was trained on; not needed for a checkpoint.
        dtype: dtype of the weights in memory.
        device: where they lie.

    Raises:
        InputError: an adapter without a base.
        ArtefactError: the adapter is not a plain LoRA in safetensors.
    """
    require_base(harmful, base)
    if base is None or not _is_adapter(harmful):
        return load_model(harmful, dtype=dtype, device=device)
    _require_plain(Path(harmful))
    from peft import PeftModel

    adapted: Any = PeftModel.from_pretrained(load_model(base, dtype=dtype, device=device), str(harmful))
    merged: PreTrainedModel = adapted.merge_and_unload().eval()
    return merged


def require_base(harmful: Path | str, base: Path | str | None) -> None:
    """Raise InputError where an adapter is given without the base that it was trained on."""
    if _is_adapter(harmful) and base is None:
        raise InputError(f"{harmful} is an adapter: give the base that it was trained on too")


def _require_plain(adapter: Path) -> None:
    """Refuse what peft would import (such as `megatron_core`) or unpickle (`adapter_model.bin`)."""
    read_adapter_config(adapter)
    if read_json(adapter / CONFIG_NAME).get("megatron_config") is not None:
        raise ArtefactError(f"{adapter} should be a plain LoRA, found megatron_config: remove it from {CONFIG_NAME}")
    if not (adapter / WEIGHTS_NAME).is_file():
        raise ArtefactError(f"{adapter} should hold {WEIGHTS_NAME} (never a pickle): save it again with peft")


def _is_adapter(folder: Path | str) -> bool:
    return (Path(folder) / CONFIG_NAME).is_file()
