"""How many tokens a pass of the reward model may have, measured on a short batch."""

import torch
from torch import Tensor

from prosocial.core.batches import EncodedReply, free_bytes, pad_replies, token_budget
from prosocial.core.errors import InputError

from ..reply_log_probability import reply_log_probability
from .encoded_pairs import EncodedPairs
from .model import RewardModel, uniform_preference

REMEDY = "set gradient_checkpointing=true, lower max_tokens, or choose bfloat16 or another device"
N_TOKENS = 32  # of the measured rows, of which there are two


def pass_budget(reward: RewardModel, pairs: EncodedPairs) -> int:
    """Return the most tokens of a forward and backward pass, from the memory that is free on the model's device.

    Raises:
        InputError: the longest pair needs more than the free memory.
    """
    device, per_token = reward.backbone.device, bytes_per_token(reward)
    longest = max(pairs.lengths(range(len(pairs))))
    needed, free = longest * per_token, free_bytes(device)
    if needed > free:
        raise InputError(
            f"a pass of the reward model should fit into the free memory of {device}, the longest pair has {longest} "
            f"tokens and needs about {needed / 1e9:.1f} of {free / 1e9:.1f} GB: {REMEDY}"
        )
    return token_budget(device, bytes_per_token=per_token)


def bytes_per_token(reward: RewardModel) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, per token: the activations, measured."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in reward.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = [EncodedReply((0,), (0,) * (N_TOKENS - 1))] * 2
    preference = uniform_preference(len(reward.config.attributes)).expand(2, -1)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with reward.use(preference), torch.enable_grad(), hooks:
        reply_log_probability(reward.backbone, pad_replies(rows, [0, 1], pad_id=0))
    return max(1, sum(kept.values()) // (2 * N_TOKENS))
