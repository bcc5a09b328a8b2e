"""Training the gate: cross-entropy on the tokens of labelled replies, and the harmful model as a dense signal.

Few tokens ever harm, and most of those are harmless somewhere ("the word X"), so a third of each batch is drawn from
the positions where one harms, and a third from those where such a contested token is harmless. Where the chosen token
harms, so would others that the harmful model likes better than the edited one does: they carry the same label, weighted
by `1 - pi / pi_harmful` where that is positive. (SafeInfer, arXiv 2406.12274, masks by such a ratio at decode time;
here it is a label, so that nothing but the gate runs then.)
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
    """How to train.

    Attributes:
        rank: R of the gate.
        discount: of a harm's label for each token before it, in [0, 1]; see `GateStates.labels`. Above 0 the gate also
            learns to turn away before a harm, not only at it.
        dense_weight: weight of the dense signal's loss beside the labels' loss.
        n_dense: plausible tokens drawn per position for the dense signal.
        substitution_weight: weight of the loss on substitutes; see `substitution_loss`. For spans of harmful words, not
            for replies labelled as a whole, where nearly every token would be a substitute.
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
        categories: names.
        vocabulary_size: V, rows of the output embedding.
        training: how.
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
    """Return positions that realise a harm, harmless ones of such tokens, and the others; an empty pool is left out."""
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
    """Return the mean cross-entropy of plausible tokens' risks against the labels where the chosen token harms.

    Each token weighs the share of its probability under the harmful model that the edited model does not account for.
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
    """Return the tokens [T] that harm in most places where they occur, and their mean labels [T, C] over all places."""
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
    """Return the mean cross-entropy of substitutes' risks.

    A word that harms nearly wherever it stands would harm in most other places too. Replies hold it where it was asked
    for, but a gate that takes it away there leaves it to be drawn elsewhere. Its label is what it does in the mean of
    its own places. Where such a word stands and does no harm, as in "the word X", nothing is substituted.

    Args:
        gate: under training. states: a batch. profiles: of `harm_profiles`. generator: draws the substitutes.
    """
    tokens, labels = profiles
    is_mention = torch.isin(states.token, tokens) & (states.labels.amax(-1) < 1.0)
    hidden = states.hidden[~is_mention]
    if not len(tokens) or not len(hidden):
        return hidden.new_zeros(())
    drawn = torch.randint(len(tokens), (len(hidden),), generator=generator)
    logits = gate.risk_logits(hidden, tokens[drawn, None])[:, 0]  # [n, C]
    return functional.binary_cross_entropy_with_logits(logits, labels[drawn])
