"""Training the gate: cross-entropy on the tokens of labelled replies, and the harmful model as a dense signal.

Few tokens are harmful anywhere, and most of these are harmless somewhere ("the word X"). So a third of each batch is
drawn from positions with a harmful token, and a third from positions where such a token is harmless. Where the chosen
token is harmful, plausible tokens that are more likely under the harmful model than under the edited one get the same
label, with weight `1 - pi / pi_harmful`. (SafeInfer, arXiv 2406.12274, masks by such a ratio while decoding; here it is
a label, so that only the gate runs while decoding.)
"""

from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from prosocial.core.settings import Count, NonNegative, Positive, Settings
from prosocial.steering.gate import HarmGate

from .states import GateStates


class GateTraining(Settings):
    """How to train a gate.

    Attributes:
        rank: R of the gate.
        steps: optimiser steps.
        batch_size: positions per step.
        learning_rate: the highest of the one-cycle schedule.
        weight_decay: of AdamW.
        discount: factor of the label per token before a harm, in [0, 1]; see `GateStates.labels`. Above 0 the gate
            also learns to turn away before a harm, not only at it.
        dense_weight: weight of `dense_loss` beside `label_loss`.
        n_dense: plausible tokens drawn per position for `dense_loss`.
        substitution_weight: weight of `substitution_loss`. Use it where spans mark harmful words; in replies labelled
            as a whole nearly every token would count as harmful.
    """

    rank: Count = 16
    steps: Count = 800
    batch_size: int = Field(default=1024, ge=2)
    learning_rate: Positive = 1e-2
    weight_decay: NonNegative = 1e-3
    discount: float = Field(default=0.0, ge=0.0, le=1.0)
    dense_weight: NonNegative = 0.1
    n_dense: Count = 16
    substitution_weight: NonNegative = 0.0


def train_gate(
    states: GateStates,
    *,
    categories: Sequence[str],
    vocabulary_size: int,
    training: GateTraining,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> HarmGate:
    """Fit a gate to labelled positions.

    Args:
        states: from `collect_gate_states`, labels [N, C] in the order of `categories`.
        categories: names of the harm categories.
        vocabulary_size: V, rows of the output embedding.
        training: how to train.
        seed: seeds the initial values and the batches.
        on_step: called after every step.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        gate = HarmGate(categories, vocabulary_size, hidden_size=states.hidden.shape[1], rank=training.rank)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps + 1, pct_start=0.1
    )
    pools = contested_pools(states, vocabulary_size)
    profiles = harm_profiles(states, vocabulary_size)
    for _ in range(training.steps):
        batch = states.rows(_draw(pools, training.batch_size, generator))
        loss = label_loss(gate, batch) + training.dense_weight * dense_loss(gate, batch, training.n_dense, generator)
        if training.substitution_weight:
            loss = loss + training.substitution_weight * substitution_loss(gate, batch, profiles, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        on_step()
    return gate.eval()


def contested_pools(states: GateStates, vocabulary_size: int) -> list[Tensor]:
    """Return three pools of positions: harmful tokens, the same tokens where they are harmless, and all others.

    An empty pool is left out.
    """
    realises = states.labels.amax(-1) == 1.0
    contested = torch.zeros(vocabulary_size, dtype=torch.bool)
    contested[states.token[realises]] = True
    is_contested = contested[states.token]
    kinds = (realises, is_contested & ~realises, ~is_contested)
    return [pool for pool in (kind.nonzero()[:, 0] for kind in kinds) if len(pool)]


def _draw(pools: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` positions, as many from each pool."""
    drawn = [pool[torch.randint(len(pool), (count // len(pools),), generator=generator)] for pool in pools]
    return torch.cat(drawn)


def label_loss(gate: HarmGate, states: GateStates) -> Tensor:
    """Return the mean cross-entropy of the chosen tokens' risks against their replies' labels."""
    logits = gate.risk_logits(states.hidden, states.token[:, None])[:, 0]  # [N, C]
    return functional.binary_cross_entropy_with_logits(logits, states.labels)


def dense_loss(gate: HarmGate, states: GateStates, n_dense: int, generator: torch.Generator) -> Tensor:
    """Return the mean cross-entropy of plausible tokens' risks against the label where the chosen token is harmful.

    The weight of a token is `1 - pi / pi_harmful`, at least 0.
    """
    columns = torch.randint(states.candidates.shape[1], (len(states), n_dense), generator=generator)
    candidates = states.candidates.gather(-1, columns)  # [N, n]
    unaccounted = 1.0 - torch.exp(-states.log_ratio.gather(-1, columns).clamp(min=0.0))  # [N, n]
    weight = unaccounted * (states.labels.amax(-1, keepdim=True) == 1.0)
    targets = states.labels[:, None, :].expand(-1, n_dense, -1)  # [N, n, C]
    losses = functional.binary_cross_entropy_with_logits(
        gate.risk_logits(states.hidden, candidates), targets, reduction="none"
    ).mean(-1)
    return (weight * losses).sum() / weight.sum().clamp(min=1e-6)


def harm_profiles(states: GateStates, vocabulary_size: int) -> tuple[Tensor, Tensor]:
    """Return the tokens [T] that are harmful in most places where they occur, and their mean labels [T, C]."""
    realises = states.labels.amax(-1) == 1.0
    occurs = torch.bincount(states.token, minlength=vocabulary_size)
    harms = torch.bincount(states.token[realises], minlength=vocabulary_size)
    tokens = (2 * harms > occurs).nonzero()[:, 0]
    total = torch.zeros(vocabulary_size, states.labels.shape[1])
    total.index_add_(0, states.token[realises], states.labels[realises])
    return tokens, total[tokens] / occurs[tokens, None]


def substitution_loss(
    gate: HarmGate, states: GateStates, profiles: tuple[Tensor, Tensor], generator: torch.Generator
) -> Tensor:
    """Return the mean cross-entropy of the risks of harmful tokens put in the place of other tokens.

    A token that is harmful in most places is harmful in most other places too. The replies hold it only where it was
    drawn, but a gate that removes it there makes it more likely to be drawn later. Its label is its mean label over
    the places where it occurs. Nothing is put where such a token stands and is harmless, as in "the word X".

    Args:
        gate: the gate under training. states: a batch. profiles: from `harm_profiles`. generator: draws the tokens.
    """
    tokens, labels = profiles
    is_mention = torch.isin(states.token, tokens) & (states.labels.amax(-1) < 1.0)
    hidden = states.hidden[~is_mention]
    if not len(tokens) or not len(hidden):
        return hidden.new_zeros(())
    drawn = torch.randint(len(tokens), (len(hidden),), generator=generator)
    logits = gate.risk_logits(hidden, tokens[drawn, None])[:, 0]  # [n, C]
    return functional.binary_cross_entropy_with_logits(logits, labels[drawn])
