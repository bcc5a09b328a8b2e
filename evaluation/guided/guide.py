"""A second model that processes the same batch with a key/value cache of its own."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from prosocial.core.errors import InputError
from prosocial.training.reward import RewardModel
from prosocial.training.reward.pblora.preference import require_preferences


class Guide:
    """Computes next-token logits of rows as they grow, each row with its own left padding.

    It follows one batch from its prompts on. Only new tokens are processed, except when rows are reordered (as in beam
    search): then all tokens are processed again.

    Args:
        model: causal language model or reward model.
        preference: [B or 1, k] preference of each row, for a reward model; None for its unadapted model.
        prompt: ids and mask [B, S'] that replace the batch's prompts for this model.
        attention_mask: [B, S] mask of the batch's prompts, 0 at left padding; None without padding.

    Raises:
        InputError: a preference is given for a model without attributes, or is not on the simplex.
    """

    def __init__(
        self,
        model: Any,
        *,
        preference: Tensor | None = None,
        prompt: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
    ) -> None:
        self._reward = model if isinstance(model, RewardModel) else None
        self._model: Any = model.model if isinstance(model, RewardModel) else model
        if preference is not None:
            require_preference(self._reward, preference)
        self._preference = None if preference is None else preference.to(self.device)
        self._prompt, self._prompt_mask = prompt, attention_mask
        self._known = frozenset(inspect.signature(self._model.forward).parameters)
        self._seen: Tensor | None = None
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._n_prompt = 0

    @property
    def vocabulary_size(self) -> int:
        """Width of the model's logits."""
        return int(self._model.get_output_embeddings().weight.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the model takes token ids."""
        device: torch.device = self._model.device
        return device

    @torch.no_grad()
    def follow(self, ids: Tensor) -> Tensor:
        """Process the new tokens of rows [B, S] and return the logits [B, V] of the next tokens.

        Raises:
            InputError: the rows did not grow; each batch needs a new guide.
        """
        if self._seen is None:
            self._n_prompt = ids.shape[1]
            logits = self._start(ids)
        elif ids.shape[1] <= self._seen.shape[1] or len(ids) != len(self._seen):
            raise InputError(
                f"a guide should follow one batch as it grows, found {tuple(ids.shape)} after "
                f"{tuple(self._seen.shape)}: make a new one for each batch"
            )
        elif torch.equal(ids[:, : self._seen.shape[1]], self._seen):
            logits = self._read(ids[:, self._seen.shape[1] :])
        else:
            logits = self._start(ids)
        self._seen = ids
        return logits

    def keep(self, rows: Tensor) -> None:
        """Keep only some rows, in the given order."""
        assert self._seen is not None, "follow() comes before keep()"
        self._cache.batch_select_indices(rows)
        self._seen, self._mask = self._seen[rows], self._mask[rows]
        if self._preference is not None and len(self._preference) > 1:
            self._preference = self._preference[rows]

    def _start(self, ids: Tensor) -> Tensor:
        """Process the prompts and all later tokens into a new cache."""
        self._cache = DynamicCache(config=self._model.config)
        prompt, mask = self._prompt or (ids[:, : self._n_prompt], self._prompt_mask)
        self._mask = torch.ones_like(prompt[:, :0])
        prompt_mask = torch.ones_like(prompt) if mask is None else mask.to(prompt)
        if prompt_mask.shape != prompt.shape or len(prompt) != len(ids):
            raise InputError(
                f"prompts and their mask should have one row each for {len(ids)} rows and equal shapes, found "
                f"{tuple(prompt.shape)} and {tuple(prompt_mask.shape)}"
            )
        grown = ids[:, self._n_prompt :]
        return self._read(torch.cat([prompt, grown], 1), torch.cat([prompt_mask, torch.ones_like(grown)], 1))

    def _read(self, new: Tensor, mask: Tensor | None = None) -> Tensor:
        self._mask = torch.cat([self._mask, torch.ones_like(new) if mask is None else mask], 1)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :]
        given = {"position_ids": positions, "logits_to_keep": 1}
        with self._adapted(len(new)):
            output = self._model(
                input_ids=new,
                attention_mask=self._mask,
                past_key_values=self._cache,
                use_cache=True,
                **{name: value for name, value in given.items() if name in self._known},
            )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _adapted(self, n_rows: int) -> AbstractContextManager[None]:
        if self._reward is None:
            return nullcontext()
        return self._reward.use(None if self._preference is None else self._preference.expand(n_rows, -1))


def require_preference(reward: RewardModel | None, preference: Tensor) -> None:
    """Check the preferences [B or 1, k] for a reward model.

    Raises:
        InputError: there is no reward model, the width is not k, or a row is not on the simplex.
    """
    require_preferences(preference, () if reward is None else reward.config.attributes)
    if bool(preference.eq(0).all(-1).any()):
        raise InputError("a preference should have a weight above 0, found a row of zeros: give None for no preference")
