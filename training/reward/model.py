"""The reward model: a frozen language model with a PBLoRA adapter over named attributes."""

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

from prosocial.core.errors import ArtefactError, FingerprintError, InputError
from prosocial.core.files import read_json, require_keys, storage_errors, write_json

from .pblora.row_jacobian import RowJacobian
from .pblora.tuner import PBLoRAConfig, use_preference

SCHEMA = "prosocial.reward/2"
WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class RewardConfig:
    """What defines a reward model beside its weights.

    Attributes:
        attributes: names in the order of the preference vector.
        targets: regex that fully matches the names of the linear layers to adapt.
        rank: r1, the preference-agnostic rank.
        preference_rank: r2, the preference-aware rank.
        alpha: the delta is scaled by alpha / preference_rank.
    """

    attributes: tuple[str, ...]
    targets: str = r".*\.(q_proj|k_proj|v_proj)"
    rank: int = 4
    preference_rank: int = 4
    alpha: float = 8.0


class RewardModel:
    """An autoregressive reward model: reward(x, y | p) = log pi_p(y | x), pi_p being the adapted model under p.

    Attributes:
        model: the language model, adapted in place; outside of `use` it is the unadapted one.
        peft: the same as peft knows it.
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
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft's
                self.peft = get_peft_model(model, adapter)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"targets {config.targets!r} should fully match the names of linear layers: none of this model's match"
            ) from error
        self.model, self.config = self.peft.get_base_model(), config

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The adapter's trainable parameters."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def use(self, preference: Tensor | None) -> AbstractContextManager[None]:
        """Adapt the model for the duration of a block: row b follows preference b of [B, k], a row of zeros none.

        None leaves every row unadapted.

        Raises:
            InputError: a preference is off the simplex.
        """
        return use_preference(self.peft, preference)

    def tell_rows_apart(self) -> AbstractContextManager[RowJacobian]:
        """Let the passes of a block keep the gradients of a batch's rows apart."""
        tuner: Any = self.peft.base_model
        apart: AbstractContextManager[RowJacobian] = tuner.context.tell_rows_apart()
        return apart

    def recompute_activations(self) -> None:
        """Let backward passes compute activations again instead of keeping them; no dropout is switched on.

        Under `use`, a backward pass belongs into the same block as its forward pass.
        """
        model: Any = self.model
        model.activation_checkpointing_enable({"use_reentrant": False})
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True  # of the layer itself alone: it recomputes in training only

    def logits(self, input_ids: Tensor, attention_mask: Tensor, preference: Tensor | None) -> Tensor:
        """Return [B, S, V] next-token logits under preferences [B, k], or of the unadapted model under None."""
        with self.use(preference):
            model: Any = self.model
            ids, mask = input_ids.to(model.device), attention_mask.to(model.device)
            output = model(input_ids=ids, attention_mask=mask, use_cache=False)
        logits: Tensor = output.logits
        return logits

    def save(self, folder: Path | str, *, checkpoint_fingerprint: str, training: dict[str, Any]) -> None:
        """Write the adapter as peft saves it, and `reward_config.json`."""
        folder = Path(folder)
        with storage_errors(folder):
            self.peft.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's card names the local base path, and so does its config
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
        """Adapt `model` in place with the reward model saved in `folder`.

        Raises:
            FingerprintError: the reward model was trained on another checkpoint.
            ArtefactError: a file is missing, of another schema, or does not hold exactly the adapter's tensors.
        """
        reward = cls(model, read_reward_config(folder, checkpoint_fingerprint=checkpoint_fingerprint))
        reward._fill(Path(folder) / WEIGHTS)
        return reward

    def _fill(self, path: Path) -> None:
        """Load tensors whose names and shapes must be exactly the adapter's; peft alone would skip what it misses."""
        if not path.is_file():
            raise ArtefactError(f"expected the reward model's weights at {path}: there are none")
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
                "it belongs to another adapter"
            )
        bad = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
        if bad:
            raise ArtefactError(f"{path} should hold finite numbers, but {bad[0]} does not: train it again")
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
        raise FingerprintError("the reward model", config["base_fingerprint"], "the model", checkpoint_fingerprint)
    return RewardConfig(attributes=tuple(config["attributes"]), **{key: config[key] for key in keys})


def uniform_preference(n_attributes: int) -> Tensor:
    """Return [k] equal weights."""
    return torch.full((n_attributes,), 1.0 / n_attributes)
