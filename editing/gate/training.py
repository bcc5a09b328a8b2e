"""Training the gate: cross-entropy on every token of the labelled replies, and the harmful model as a dense signal.

A token carries the label of its whole reply. Beside the token that was chosen, plausible tokens are seen through the
log-ratio of the harmful model: where the reply is harmful, a token counts as that harm in proportion to
`sigmoid(log-ratio)`; where the reply is harmless, it counts as harmless. (SafeInfer, arXiv 2406.12274, masks by such a
ratio at decode time; here it is a label, so that nothing but the gate runs then.)
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..settings import Settings
from .module import HarmGate
from .states import GateStates


class GateTraining(Settings):
    """How to train.

    Attributes:
        rank: R of the gate.
        dense_weight: weight of the dense signal's loss beside the labels' loss.
        n_dense: plausible tokens drawn per position for the dense signal.
    """

    rank: int = 16
    steps: int = 800
    batch_size: int = 1024
    learning_rate: float = 1e-2
    weight_decay: float = 1e-3
    dense_weight: float = 0.1
    n_dense: int = 16


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
    for _ in range(training.steps):
        batch = states.rows(torch.randint(len(states), (training.batch_size,), generator=generator))
        loss = label_loss(gate, batch) + training.dense_weight * dense_loss(gate, batch, training.n_dense, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        on_step()
    return gate.eval()


def label_loss(gate: HarmGate, states: GateStates) -> Tensor:
    """Return the mean cross-entropy of the chosen tokens' risks against their replies' labels."""
    logits = gate.risk_logits(states.hidden, states.token[:, None])[:, 0]  # [N, C]
    return functional.binary_cross_entropy_with_logits(logits, states.labels)


def dense_loss(gate: HarmGate, states: GateStates, n_dense: int, generator: torch.Generator) -> Tensor:
    """Return the mean cross-entropy of some plausible tokens' risks against the harmful model's preference for them."""
    columns = torch.randint(states.candidates.shape[1], (len(states), n_dense), generator=generator)
    candidates = states.candidates.gather(-1, columns)  # [N, n]
    preferred = torch.sigmoid(states.log_ratio.gather(-1, columns))  # [N, n]
    targets = preferred[..., None] * states.labels[:, None, :]  # [N, n, C]
    return functional.binary_cross_entropy_with_logits(gate.risk_logits(states.hidden, candidates), targets)
