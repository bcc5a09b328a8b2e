"""One training run of a reward model. The batch and preferences of a step depend only on the seed and its number.

PARM draws one preference per batch. Here each pair of a batch has its own by default, so that every step includes
preferences for single attributes.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from prosocial.core.batches import release_cached_memory, token_budget_batches
from prosocial.core.cores import is_out_of_memory
from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json

from .attributes import Attribute
from .conflict import GRAMIAN_METHODS, combination, conflicting_share
from .encoded_pairs import EncodedPairs
from .famo import Famo
from .gradients import Part, combined_gradients, weighted_gradients
from .loss import attribute_losses, attribute_shares, preference_grid
from .memory import REMEDY, pass_budget
from .model import RewardModel
from .processes import add_up, is_first, own_rows
from .settings import RewardTraining
from .training_state import StepRecord, TrainingState, moments_of, restore

Result = TypeVar("Result")
MAX_GRADIENT_NORM = 1.0
ORDER, PREFERENCE, PROJECTION = range(3)  # independent random streams of one seed


@dataclass(frozen=True)
class Batch:
    """The pairs of one step with their preferences.

    Attributes:
        rows: indices of the B pairs.
        preference: [B, k], one preference per pair.
        shares: [B, k], weight of each pair in each attribute's loss.
        weights: [k], weights of the attributes' losses.
    """

    rows: list[int]
    preference: Tensor
    shares: Tensor
    weights: Tensor


class TrainingRun:
    """The state of a training run, with the operations of one step.

    Attributes:
        history: one record per finished step.
        saved: number of steps in the last checkpoint.
    """

    def __init__(
        self,
        reward: RewardModel,
        pairs: EncodedPairs,
        *,
        attributes: Sequence[Attribute],
        training: RewardTraining,
        pad_id: int,
        seed: int,
        made_with: str = "",
    ) -> None:
        self.history: list[StepRecord] = []
        self.saved = 0
        self._reward, self._pairs, self._training = reward, pairs, training
        self._pad_id, self._seed, self._most_pairs = pad_id, seed, training.batch_size
        self._made_with = made_with
        self._betas = torch.tensor([attribute.beta for attribute in attributes])
        self._parameters = reward.parameters
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self._famo = Famo(len(attributes)) if training.conflict == "famo" else None
        if training.gradient_checkpointing:
            reward.recompute_activations()
        self._budget = pass_budget(reward, pairs)
        if training.conflict in GRAMIAN_METHODS:  # fail early if a package is missing
            combination(torch.eye(len(attributes)), torch.ones(len(attributes)), method=training.conflict)

    def fill_gradients(self) -> tuple[Tensor, Tensor | None]:
        """Fill `.grad` for the next step; return its losses [k] and the Gramian [k, k], None if not computed."""
        batch, step = self._batch(), len(self.history)
        weigh = self._weigh(batch)
        combine = self._combine(batch, weigh) if weigh is None or step % self._training.log_every == 0 else None
        losses, gramian = self._within_memory(lambda: self._gradients(batch, weigh, combine))
        return _total(losses), gramian

    def _gradients(
        self, batch: Batch, weigh: Callable[[Tensor], Tensor] | None, combine: Callable[[Tensor], Tensor] | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Fill `.grad`, by `combine` if it is given; return the losses [k] of each micro-batch and the Gramian."""
        losses: list[Tensor] = []
        self._optimizer.zero_grad()
        with contextlib.closing(self._parts(batch, losses)) as parts:
            if combine is None:
                assert weigh is not None
                weighted_gradients(parts, self._parameters, weigh)
                return losses, None
            with self._reward.tell_rows_apart() as jacobian:
                carried = batch.weights > 0
                return losses, combined_gradients(parts, self._parameters, carried, combine, jacobian=jacobian)

    def _within_memory(self, run: Callable[[], Result]) -> Result:
        """Return the result of some passes; where memory runs out, start them again with half as many pairs each.

        Raises:
            InputError: a single pair does not fit.
        """
        while True:
            try:
                return run()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._most_pairs == 1:
                    raise InputError(f"one pair should fit into memory, it does not: {REMEDY}") from error
                self._most_pairs = (self._most_pairs + 1) // 2
            release_cached_memory()

    def is_finite(self, losses: Tensor) -> bool:
        """Return whether the losses and gradients of the next step are finite."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        return bool(losses.isfinite().all()) and all(bool(gradient.isfinite().all()) for gradient in gradients)

    def move(self, losses: Tensor, gramian: Tensor | None) -> None:
        """Take one optimiser step with the gradients in `.grad`, and append its record."""
        step, batch = len(self.history), self._batch()
        torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM)
        for group in self._optimizer.param_groups:
            group["lr"] = self._training.learning_rate * _cosine(step, self._training.steps)
        self._optimizer.step()
        if self._famo is not None:
            self._famo.update(*(_standing_in(values, batch.weights) for values in (losses, self._losses(batch))))
        weights = batch.weights.tolist()
        share = None if gramian is None else conflicting_share(gramian)
        self.history.append(StepRecord(step, float(batch.weights @ losses), losses.tolist(), weights, share))

    def save(self, path: Path) -> None:
        """Write a checkpoint; only the first process writes."""
        self.saved = len(self.history)
        if not is_first():
            return
        values = [parameter.detach() for parameter in self._parameters]
        moments = moments_of(self._optimizer, self._parameters)
        famo = [] if self._famo is None else self._famo.history
        TrainingState(self.history, values, moments, famo).write(path, run_key=self._key())

    def resume(self, path: Path) -> None:
        """Resume from a checkpoint.

        Raises:
            InputError: the checkpoint is damaged, or belongs to another training.
        """
        state = TrainingState.read(path, run_key=self._key())
        restore(state, self._optimizer, self._parameters)
        self.history, self.saved = state.history, len(state.history)
        if self._famo is not None:
            self._famo = Famo(len(self._betas), state.famo)

    def _batch(self) -> Batch:
        """Return the batch of the next step."""
        step, size, k = len(self.history), self._training.batch_size, len(self._betas)
        per_epoch = max(1, len(self._pairs) // size)
        epoch, index = divmod(step, per_epoch)
        order = torch.randperm(len(self._pairs), generator=_generator(self._seed, ORDER, epoch))
        rows = order[index * size : (index + 1) * size].tolist()
        generator, concentration = _generator(self._seed, PREFERENCE, step), self._training.concentration
        if self._training.preferences == "pair":
            preference = preference_grid(len(rows), k, concentration=concentration, generator=generator)
        else:  # the grid is in random order, so that its first row has the same distribution as all of them
            grid = preference_grid(6 * k, k, concentration=concentration, generator=generator)
            preference = grid[:1].expand(len(rows), -1)
        return Batch(rows, preference, *attribute_shares(self._pairs.signs[rows], preference))

    def _micro_batches(self, batch: Batch) -> list[list[int]]:
        """Return the pairs of each pass, as indices into this process's rows of the batch."""
        own, size = list(own_rows(range(len(batch.rows)))), self._training.micro_batch_size
        if size:
            parts = [own[start : start + size] for start in range(0, len(own), size)]
        else:
            lengths = self._pairs.lengths([batch.rows[index] for index in own])
            budgeted = token_budget_batches(lengths, budget=self._budget)
            parts = [sorted(own[at] for at in part) for part in budgeted]
        most = self._most_pairs
        return [part[start : start + most] for part in parts for start in range(0, len(part), most)]

    def _parts(self, batch: Batch, losses: list[Tensor]) -> Generator[Part, None, None]:
        """Yield the rewards of each micro-batch with their loss terms; append its losses [k] to `losses`."""
        n_tokens = self._pairs.n_reply_tokens(batch.rows)
        for at in self._micro_batches(batch):
            rows, preference = [batch.rows[index] for index in at], batch.preference[at]
            with self._reward.use(
                preference.repeat(2, 1)
            ):  # still active in the backward pass, which may recompute activations
                rewards = torch.cat(self._pairs.rewards(self._reward, rows, preference, self._pad_id))
                terms = partial(self._terms, signs=self._pairs.signs[rows], shares=batch.shares[at], n_tokens=n_tokens)
                losses.append(terms(rewards.detach())[0])
                yield Part(rewards, terms)

    def _terms(self, rewards: Tensor, *, signs: Tensor, shares: Tensor, n_tokens: int) -> tuple[Tensor, Tensor | None]:
        """Return the losses [k] and the anchor term of a micro-batch from the rewards of its replies."""
        first, second = rewards.chunk(2)
        losses = attribute_losses(first, second, signs, self._betas, shares)
        return (
            losses,
            -self._training.anchor_weight * rewards.sum() / n_tokens if self._training.anchor_weight else None,
        )

    @torch.no_grad()
    def _losses(self, batch: Batch) -> Tensor:
        def run() -> list[Tensor]:
            losses: list[Tensor] = []
            with contextlib.closing(self._parts(batch, losses)) as parts:
                for _ in parts:
                    pass
            return losses

        return _total(self._within_memory(run))

    def _weigh(self, batch: Batch) -> Callable[[Tensor], Tensor] | None:
        """Return the function from losses [k] to weights [k]; None for methods whose weights need the gradients.

        If the batch has several micro-batches, FAMO needs their total losses first, which takes an extra pass.
        """
        famo = self._famo
        if famo is None:
            return (lambda losses: batch.weights) if self._training.conflict == "none" else None
        whole = cache(lambda: self._losses(batch))
        if not self._is_one_part(batch):
            whole()  # before the passes of the gradients: processes that start those again do not meet here
        return lambda losses: famo.combination(
            _standing_in(losses if self._is_one_part(batch) else whole(), batch.weights), batch.weights
        )

    def _is_one_part(self, batch: Batch) -> bool:
        return [len(part) for part in self._micro_batches(batch)] == [len(batch.rows)]

    def _combine(self, batch: Batch, weigh: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
        """Return the function from the Gramian [k, k] to weights [k]."""
        if weigh is not None:
            weights = weigh(self._losses(batch))
            return lambda gramian: weights
        method, seed = self._training.conflict, _seed(self._seed, PROJECTION, len(self.history))
        return lambda gramian: combination(gramian, batch.weights, method=method, seed=seed)

    def _key(self) -> str:
        """Return a digest of what the training is made with and of its settings, which a checkpoint must match."""
        sequences = [[*sequence.prompt_ids, -1, *sequence.reply_ids] for sequence in self._pairs.sequences]
        shapes = [list(parameter.shape) for parameter in self._parameters]
        made_from = [
            self._made_with,
            sequences,
            self._pairs.signs.tolist(),
            self._betas.tolist(),
            shapes,
            self._pad_id,
            self._seed,
        ]
        text = canonical_json([*made_from, self._training.model_dump(mode="json")])
        return hashlib.sha256(text.encode()).hexdigest()


def _total(parts: list[Tensor]) -> Tensor:
    """Return the losses [k] of the batch: the sum over micro-batches and processes."""
    total = torch.stack(parts).sum(0)
    add_up([total])
    return total


def _standing_in(losses: Tensor, weights: Tensor) -> Tensor:
    """Return the losses with 1 where the weight is 0; FAMO uses logarithms, and log 1 stays constant."""
    return torch.where(weights > 0, losses, torch.ones_like(losses))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(*numbers))


def _cosine(step: int, steps: int) -> float:
    """Return the learning rate relative to its peak: 5 % warm-up, then a cosine decay to 5 %."""
    warm_up = max(1, steps // 20)
    return min(1.0, (step + 1) / warm_up) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
