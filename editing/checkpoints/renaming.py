"""Names of stored tensors in a loaded transformers model, which renames some of them (vision-language models)."""

from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from prosocial.core.errors import ArtefactError

from .folder import Checkpoint
from .model import LOADING_ERRORS

MODELS: Any = AutoModelForCausalLM


def empty_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """Build a checkpoint's model without weights, on device meta: of the class in its config, else a causal one.

    Raises:
        ArtefactError: transformers cannot build the model without remote code.
    """
    try:
        config = AutoConfig.from_pretrained(str(checkpoint.folder), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            named = getattr(transformers, next(iter(config.architectures or ()), ""), None)
            if isinstance(named, type) and issubclass(named, PreTrainedModel):
                model: PreTrainedModel = named(config)
            else:
                model = MODELS.from_config(config, trust_remote_code=False)
    except LOADING_ERRORS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ArtefactError(
            f"{checkpoint.folder} should be a model that transformers can build: {reason:.300}"
        ) from error
    return model


def loaded_names(checkpoint: Checkpoint, model: PreTrainedModel) -> dict[str, str]:
    """Return the stored name of each tensor by its name in the loaded model.

    Tensors that transformers converts on loading (experts that it fuses) are left out.

    Args:
        checkpoint: the checkpoint.
        model: its model, which may be without weights.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    held = model.state_dict()
    names = {}
    for stored in checkpoint.tensors:
        loaded, converted = rename_source_key(stored, renamings, converters, model.base_model_prefix, held)
        if converted is None and loaded in held:
            names[loaded] = stored
    return names
