"""The config and tuner of PBLoRA for peft, and their registration."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method
from torch import Tensor, nn

from prosocial.core.errors import InputError

from .layer import PBLoRALinear
from .preference import PreferenceContext, preference_vector, require_preferences

NAME = "PBLORA"


@dataclass
class PBLoRAConfig(PeftConfig):
    """The hyperparameters of a PBLoRA adapter, saved by peft as `adapter_config.json`.

    Attributes:
        attributes: names of the attributes, in the order of the preference vector.
        target_modules: layers to adapt: a regular expression for whole names of linear layers, or a list of name
            endings.
        exclude_modules: layers not to adapt, in the same form.
        rank: r1, rank of the preference-agnostic part.
        preference_rank: r2, rank of the preference-aware part.
        alpha: the delta is scaled by alpha / preference_rank.
        dropout: dropout probability on the adapter's input in training.

    Raises:
        InputError: there is no attribute, an attribute appears twice, or a rank is below 1.
    """

    attributes: list[str] = field(default_factory=list)
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    rank: int = 4
    preference_rank: int = 4
    alpha: float = 8.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = PeftType(NAME)
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise InputError(f"attributes should be one or more different names, found {self.attributes}")
        if min(self.rank, self.preference_rank) < 1:
            raise InputError(f"ranks should be at least 1, found {self.rank} and {self.preference_rank}")


class PBLoRAModel(BaseTuner):
    """The peft tuner that replaces linear layers by PBLoRA layers; set their preference with `use_preference`."""

    prefix = "pblora_"
    tuner_layer_cls = PBLoRALinear
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - part of peft's interface

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self.context = PreferenceContext()

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target if isinstance(target, PBLoRALinear) else None
        if layer is None:
            if not isinstance(target, nn.Linear):
                raise InputError(
                    f"PBLoRA adapts linear layers, found {type(target).__name__} at {current_key}: change the targets"
                )
            layer = PBLoRALinear(target, self.context)
        layer.add_adapter(
            adapter_name,
            n_attributes=len(peft_config.attributes),
            rank=peft_config.rank,
            preference_rank=peft_config.preference_rank,
            alpha=peft_config.alpha,
            dropout=peft_config.dropout,
        )
        layer.set_adapter(self.active_adapters, inference_mode=peft_config.inference_mode)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)


@contextmanager
def use_preference(model: nn.Module, preference: Mapping[str, float] | Tensor | None) -> Iterator[None]:
    """Set the preference of a model with a PBLoRA adapter inside a `with` block; outside, the adapter is off.

    Args:
        model: a model from `get_peft_model` or `PeftModel.from_pretrained`.
        preference: weight by attribute name, for all rows; or [B, k] with one row on the simplex per row of the batch,
            where a row of zeros turns the adapter off; or None for the unadapted model.

    Raises:
        InputError: the model has no PBLoRA adapter, the adapter is merged, or a preference is not on the simplex.
        UnknownNameError: a name is not an attribute of the adapter.
    """
    tuner = getattr(model, "base_model", None)
    if not isinstance(tuner, PBLoRAModel):
        raise InputError(
            f"the model should have a PBLoRA adapter, found {type(tuner).__name__}: load the adapter first"
        )
    config: Any = tuner.peft_config[tuner.active_adapters[0]]
    attributes: list[str] = config.attributes
    if any(layer.merged for layer in tuner.modules() if isinstance(layer, PBLoRALinear)):
        raise InputError(
            "the adapter should not be merged, found it merged at one preference: unmerge it to use another"
        )
    if isinstance(preference, Mapping):
        preference = preference_vector(preference, attributes)[None]
    if preference is not None:
        require_preferences(preference, attributes)
    with tuner.context.use(preference):
        yield


def n_parameters(config: PBLoRAConfig, shape: torch.Size) -> int:
    """Return the number of adapter parameters of a matrix [n, m]: (r1 + r2)(m + n) + r1^2 + k r2^2 (PARM, section 4).

    Examples:
        >>> n_parameters(PBLoRAConfig(attributes=["empathy", "truthfulness"]), torch.Size([32, 32]))
        560
    """
    ranks = config.rank, config.preference_rank
    return sum(ranks) * sum(shape) + ranks[0] ** 2 + len(config.attributes) * ranks[1] ** 2


def _register() -> None:
    """Register the method with peft, by adding a member to its enumeration `PeftType`, which has no public way to."""
    if NAME in PeftType.__members__:
        return
    member = str.__new__(PeftType, NAME)
    member._name_, member._value_ = NAME, NAME
    PeftType._member_names_.append(NAME)
    PeftType._member_map_[NAME] = PeftType._value2member_map_[NAME] = member
    type.__setattr__(PeftType, NAME, member)
    register_peft_method(name=NAME.lower(), config_cls=PBLoRAConfig, model_cls=PBLoRAModel)


_register()
