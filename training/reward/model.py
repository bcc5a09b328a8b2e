"""The reward model: a frozen language model with a PBLoRA adapter conditioned on attributes."""

import math
import warnings
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from prosocial.core.contents import read_as
from prosocial.core.errors import ArtefactError, FingerprintError, InputError
from prosocial.core.files import read_json, require_keys, storage_errors, write_json
from prosocial.core.settings import usable_pattern
from prosocial.steering.backbone import Backbone

from .pblora.row_jacobian import RowJacobian
from .pblora.tuner import PBLoRAConfig, use_preference

SCHEMA = "prosocial.reward/2"
WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
MOST_RANK = 2**14  # no hidden size of today is larger


@dataclass(frozen=True)
class RewardConfig:
    """The hyperparameters of a reward model's adapter.

    Attributes:
        attributes: names of the k attributes, in the order of the preference vector.
        targets: regular expression that must match the whole name of a linear layer to adapt it.
        rank: r1, rank of the preference-agnostic part.
        preference_rank: r2, rank of the preference-aware part.
        alpha: the weight delta is scaled by alpha / preference_rank.
    """

    attributes: tuple[str, ...]
    targets: str = r".*\.(q_proj|k_proj|v_proj)"
    rank: int = 4
    preference_rank: int = 4
    alpha: float = 8.0

    def __post_init__(self) -> None:
        usable_pattern(self.targets)
        if not all(isinstance(name, str) for name in self.attributes) or len(set(self.attributes)) < 1:
            raise InputError(f"a reward model should have attributes by name, found {list(self.attributes)!r:.80}")
        for name, value in (("rank", self.rank), ("preference_rank", self.preference_rank)):
            if type(value) is not int or not 1 <= value <= MOST_RANK:
                raise InputError(
                    f"{name} of a reward model should be an integer from 1 to {MOST_RANK}, found {value!r}"
                )
        if not math.isfinite(self.alpha):
            raise InputError(f"alpha of a reward model should be a finite number, found {self.alpha!r}")


class RewardModel:
    """An autoregressive reward model: reward(x, y | p) = log pi_p(y | x), with pi_p the adapted model for preference p.

    Source: PARM (arXiv 2505.06274).

    Attributes:
        model: the language model, adapted in place; outside `use` the adapter is off.
        backbone: the same model in two steps, hidden states and logits.
        peft: the same model wrapped by peft.
        config: the adapter's hyperparameters.

    Raises:
        InputError: `targets` matches no linear layer, the hyperparameters are invalid, or the model is not one that
            `Backbone` takes.
    """

    def __init__(self, model: PreTrainedModel, config: RewardConfig) -> None:
        adapter = PBLoRAConfig(
            task_type="CAUSAL_LM",
            attributes=list(config.attributes),
            target_modules=config.targets,
            rank=config.rank,
            preference_rank=config.preference_rank,
            alpha=config.alpha,
        )
        self.backbone = Backbone(model)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
                )  # raised in peft
                self.peft = get_peft_model(model, adapter)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"targets {config.targets!r} should match the whole names of linear layers, found no match"
            ) from error
        self.model, self.config = self.peft.get_base_model(), config

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of the adapter."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def use(self, preference: Tensor | None) -> AbstractContextManager[None]:
        """Return a context manager in which the adapter follows these preferences.

        Args:
            preference: [B, k], one row on the simplex per row of the batch; a row of zeros turns the adapter off for
                its row. None turns it off for every row.

        Raises:
            InputError: a preference is not on the simplex.
        """
        return use_preference(self.peft, preference)

    def tell_rows_apart(self) -> AbstractContextManager[RowJacobian]:
        """Return a context manager in which backward passes compute the gradients of each row separately."""
        tuner: Any = self.peft.base_model
        apart: AbstractContextManager[RowJacobian] = tuner.context.tell_rows_apart()
        return apart

    def recompute_activations(self) -> None:
        """Turn on activation checkpointing, without turning on dropout.

        Backward passes then recompute activations: run them inside the same `use` block as their forward pass.
        """
        model: Any = self.model
        model.activation_checkpointing_enable({"use_reentrant": False})
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = (
                    True  # this flag only, not the submodules': the layer recomputes only in training mode
                )

    def logits(self, input_ids: Tensor, attention_mask: Tensor, preference: Tensor | None) -> Tensor:
        """Return next-token logits [B, S, V] under preferences [B, k]; None for the unadapted model."""
        with self.use(preference):
            model: Any = self.model
            ids, mask = input_ids.to(model.device), attention_mask.to(model.device)
            output = model(input_ids=ids, attention_mask=mask, use_cache=False)
        logits: Tensor = output.logits
        return logits

    def save(self, folder: Path | str, *, checkpoint_fingerprint: str, training: dict[str, Any]) -> None:
        """Write the adapter in peft's format, and `reward_config.json`, into `folder`.

        Args:
            folder: the folder; created if it does not exist.
            checkpoint_fingerprint: fingerprint of the checkpoint that the adapter was trained on.
            training: JSON-serialisable description of the training, stored in the config.

        Raises:
            StorageError: the files cannot be written.
        """
        folder = Path(folder)
        with storage_errors(folder):
            self.peft.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(
            missing_ok=True
        )  # peft writes the local path of the base into its card and config
        adapter = read_json(folder / ADAPTER_CONFIG)
        write_json(folder / ADAPTER_CONFIG, adapter | {"base_model_name_or_path": None})
        config = {
            "schema": SCHEMA,
            "base_fingerprint": checkpoint_fingerprint,
            **asdict(self.config),
            "training": training,
        }
        write_json(folder / "reward_config.json", config)

    @classmethod
    def load(cls, folder: Path | str, model: PreTrainedModel, *, checkpoint_fingerprint: str) -> "RewardModel":
        """Load the adapter saved in `folder` into `model`, which is modified in place.

        Raises:
            FingerprintError: the reward model was trained on another checkpoint.
            ArtefactError: a file is missing, its schema differs, or its tensors do not match the adapter's exactly.
        """
        reward = cls(model, read_reward_config(folder, checkpoint_fingerprint=checkpoint_fingerprint))
        reward._fill(Path(folder) / WEIGHTS)
        return reward

    def _fill(self, path: Path) -> None:
        """Load tensors whose names and shapes must match the adapter's exactly; peft would ignore missing tensors."""
        if not path.is_file():
            raise ArtefactError(f"expected the reward model's weights at {path}, found no such file: train it again")
        tensors = load_file(path)
        expected = {
            name: tuple(value.shape)
            for name, value in get_peft_model_state_dict(self.peft, save_embedding_layers=False).items()
        }
        actual = {name: tuple(value.shape) for name, value in tensors.items()}
        odd = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
        if odd:
            raise ArtefactError(
                f"{path} should hold {odd[0]} with shape {expected.get(odd[0])}, found {actual.get(odd[0])}: "
                "the file belongs to another adapter, train it again"
            )
        bad = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
        if bad:
            raise ArtefactError(f"{path} should hold finite numbers, found others in {bad[0]}: train it again")
        set_peft_model_state_dict(self.peft, tensors)


def read_reward_config(folder: Path | str, *, checkpoint_fingerprint: str) -> RewardConfig:
    """Read what defines the reward model in `folder`, without its weights.

    Raises:
        FingerprintError: the reward model was trained on another checkpoint.
        ArtefactError: the file is missing, of another schema, or lacks a key.
    """
    path = Path(folder) / "reward_config.json"
    config = read_json(path, schema=SCHEMA)
    keys = ("targets", "rank", "preference_rank", "alpha")
    require_keys(config, ("attributes", "base_fingerprint", *keys), where=str(path))
    if config["base_fingerprint"] != checkpoint_fingerprint:
        raise FingerprintError("the reward model", str(config["base_fingerprint"]), "the model", checkpoint_fingerprint)
    with read_as("the config of a reward model", path):
        return RewardConfig(attributes=tuple(config["attributes"]), **{key: config[key] for key in keys})


def uniform_preference(n_attributes: int) -> Tensor:
    """Return the preference [k] with equal weights.

    Examples:
        >>> uniform_preference(4)
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    return torch.full((n_attributes,), 1.0 / n_attributes)
