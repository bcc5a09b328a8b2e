"""Guided decoding as an engine of the decoding loop, so that its replies share their noise with other engines'."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prosocial.core.errors import InputError
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import ControlArrays, Steering, control_arrays
from prosocial.steering.decoding.engine import Decision
from prosocial.steering.plausible import plausible
from prosocial.training.reward import RewardModel

from .formulas import weighted_product
from .guide import Guide
from .vocabulary import require_same_size

MakeGuides = Callable[[Tensor], list[Guide]]  # from preferences [B, k]
Combine = Callable[[Tensor, list[Tensor], Tensor], Tensor]  # base, guides' logits, preferences [B, k]


class GuidedEngine:
    """Decodes with a base model and guides, among the base's `plausible_k` likeliest tokens, without a gate.

    Args:
        base: causal language model, or a reward model, whose unadapted model is used.
        guides: creates the guides of a batch from its preferences [B, k].
        combine: computes guided logits [B, V] from the base's logits [B, V], the guides' logits and the preferences.
        config: attribute names, `plausible_k` and default preference.
    """

    def __init__(self, base: Any, guides: MakeGuides, combine: Combine, config: DecodingConfig) -> None:
        self.config: DecodingConfig | None = config
        self._base, self._guides, self._combine = base, guides, combine
        model: Any = base.model if isinstance(base, RewardModel) else base
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.context_length: int | None = None if limit is None else int(limit)
        self.vocabulary_size = Guide(base).vocabulary_size

    @classmethod
    def teacher(cls, reward: RewardModel, config: DecodingConfig) -> "GuidedEngine":
        """Return the teacher of the head, `z0 + (1 / beta) (log pi_p - log pi)`, with one model for all preferences.

        Raises:
            InputError: the reward model's attributes differ from the config's.
        """
        _require_attributes(reward.config.attributes, config)

        def combine(base: Tensor, guided: list[Tensor], preference: Tensor) -> Tensor:
            return base + (guided[0].log_softmax(-1) - base.log_softmax(-1)) / config.beta

        return cls(reward, lambda preference: [Guide(reward, preference=preference)], combine, config)

    @classmethod
    def separate(
        cls, base: Any, rewards: Sequence[RewardModel], config: DecodingConfig, *, log_ratio: bool
    ) -> "GuidedEngine":
        """Return guidance by one reward model per attribute, weighted by the preference (GenARM).

        Args:
            base: causal language model.
            rewards: a single-attribute reward model for each attribute of the config, in order.
            config: attribute names, `plausible_k` and default preference.
            log_ratio: add `log pi_i - log pi` instead of GenARM's `log pi_i`.
        """
        _require_attributes([name for reward in rewards for name in reward.config.attributes], config)

        def guides(preference: Tensor) -> list[Guide]:
            return [Guide(reward, preference=preference.new_ones(1, 1)) for reward in rewards]

        def combine(base: Tensor, logits: list[Tensor], preference: Tensor) -> Tensor:
            guided = weighted_product(base, logits, preference / config.beta)
            return guided - base.log_softmax(-1) / config.beta if log_ratio else guided

        return cls(base, guides, combine, config)

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> "GuidedStream":
        """Read prompts [B, S] of equal length."""
        assert self.config is not None
        arrays = controls or control_arrays(self.config, [Steering()] * len(ids))
        base = Guide(self._base)
        preference = torch.from_numpy(arrays.preference).to(base.device)
        models = [base, *self._guides(preference)]
        for guide in models[1:]:
            require_same_size(models[0].vocabulary_size, guide.vocabulary_size)
        return GuidedStream(models, self._combine, preference, torch.from_numpy(ids).to(base.device), self.config)


class GuidedStream:
    """Rows being decoded in base and guides."""

    def __init__(
        self, models: Sequence[Guide], combine: Combine, preference: Tensor, ids: Tensor, config: DecodingConfig
    ) -> None:
        self._models, self._combine, self._preference = models, combine, preference
        self._ids, self._config = ids, config
        self.decision = self._decide()

    def step(self, tokens: NDArray[np.int64]) -> None:
        """Append one token [B] per row and compute the next decision."""
        self._ids = torch.cat([self._ids, torch.from_numpy(tokens)[:, None].to(self._ids.device)], 1)
        self.decision = self._decide()

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Keep only some rows, in the given order."""
        at = torch.from_numpy(rows)
        self._ids, self._preference = self._ids[at], self._preference[at]
        for model in self._models:
            model.keep(at)

    @torch.inference_mode()
    def _decide(self) -> Decision:
        base, *guides = (model.follow(self._ids) for model in self._models)
        _, candidates = plausible(base, self._config.plausible_k)
        guided = self._combine(base, guides, self._preference)
        logits = torch.full_like(guided, -torch.inf).scatter(-1, candidates, guided.gather(-1, candidates))
        risk = np.zeros((len(base), len(self._config.categories)), np.float32)
        return Decision(logits.cpu().numpy(), risk, np.full(len(base), candidates.shape[1], np.int64))


def _require_attributes(attributes: Sequence[str], config: DecodingConfig) -> None:
    if list(attributes) != config.attributes:
        raise InputError(
            f"the reward model should score the attributes of the decoding config {config.attributes} in that order, "
            f"found {list(attributes)}"
        )
