"""The reward model: named attributes, labelled pairs, a preference-conditioned adapter, and its training."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accuracy import pair_accuracy as pair_accuracy
    from .attributes import DEFAULT_ATTRIBUTES as DEFAULT_ATTRIBUTES
    from .attributes import Attribute as Attribute
    from .attributes import define_attributes as define_attributes
    from .attributes import resolve_attributes as resolve_attributes
    from .encoded_pairs import EncodedPairs as EncodedPairs
    from .model import RewardConfig as RewardConfig
    from .model import RewardModel as RewardModel
    from .pairs import Pair as Pair
    from .pairs import label_pair as label_pair
    from .pairs import pairs_of as pairs_of
    from .pairs import read_pairs as read_pairs
    from .pairs import write_pairs as write_pairs
    from .settings import RewardTraining as RewardTraining
    from .training import train_reward as train_reward

_HOME = {
    "DEFAULT_ATTRIBUTES": ".attributes",
    "Attribute": ".attributes",
    "define_attributes": ".attributes",
    "resolve_attributes": ".attributes",
    "RewardConfig": ".model",
    "RewardModel": ".model",
    "Pair": ".pairs",
    "label_pair": ".pairs",
    "pairs_of": ".pairs",
    "read_pairs": ".pairs",
    "write_pairs": ".pairs",
    "EncodedPairs": ".encoded_pairs",
    "RewardTraining": ".settings",
    "pair_accuracy": ".accuracy",
    "train_reward": ".training",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
