"""The reward model: a frozen language model with a PBLoRA adapter over named attributes."""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import FingerprintError
from ..files import read_json, storage_errors, write_json
from .pblora import PreferenceContext, inject_pblora, load_pblora_state, pblora_state

SCHEMA = "prosocial.reward/1"


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
        model: the language model, adapted in place; with preference None it is the unadapted one.
    """

    def __init__(self, model: nn.Module, config: RewardConfig) -> None:
        self.model, self.config = model, config
        self.context: PreferenceContext = inject_pblora(
            model,
            targets=config.targets,
            n_attributes=len(config.attributes),
            rank=config.rank,
            preference_rank=config.preference_rank,
            alpha=config.alpha,
        )

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The adapter's trainable parameters."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def use(self, preference: Tensor | None) -> AbstractContextManager[None]:
        """Adapt the model for the duration of a block: row b follows preference b of [B, k], a row of zeros none.

        None leaves every row unadapted.
        """
        return self.context.use(preference)

    def logits(self, input_ids: Tensor, attention_mask: Tensor, preference: Tensor | None) -> Tensor:
        """Return [B, S, V] next-token logits under preferences [B, k], or of the unadapted model under None."""
        with self.use(preference):
            output: Any = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        logits: Tensor = output.logits
        return logits

    def save(self, folder: Path, *, checkpoint_fingerprint: str, training: dict[str, Any]) -> None:
        """Write `reward.safetensors` and `reward_config.json`."""
        tensors = {name: tensor.contiguous() for name, tensor in pblora_state(self.model).items()}
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / "reward.safetensors")
        config = {
            "schema": SCHEMA,
            "base_fingerprint": checkpoint_fingerprint,
            **asdict(self.config),
            "training": training,
        }
        write_json(folder / "reward_config.json", config)

    @classmethod
    def load(cls, folder: Path, model: nn.Module, *, checkpoint_fingerprint: str) -> "RewardModel":
        """Adapt `model` in place with the reward model saved in `folder`.

        Raises:
            FingerprintError: the reward model was trained on another checkpoint.
        """
        config = read_json(folder / "reward_config.json", schema=SCHEMA)
        if config["base_fingerprint"] != checkpoint_fingerprint:
            raise FingerprintError("the reward model", config["base_fingerprint"], "the model", checkpoint_fingerprint)
        fields = {key: config[key] for key in ("targets", "rank", "preference_rank", "alpha")}
        reward = cls(model, RewardConfig(attributes=tuple(config["attributes"]), **fields))
        load_pblora_state(model, load_file(folder / "reward.safetensors"))
        return reward


def uniform_preference(n_attributes: int) -> Tensor:
    """Return [k] equal weights."""
    return torch.full((n_attributes,), 1.0 / n_attributes)
