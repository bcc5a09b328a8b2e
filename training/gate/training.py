"""Training the gate: cross-entropy on the tokens of labelled replies, and the harmful model as a dense signal.

Few tokens are harmful anywhere, and most of these are harmless somewhere ("the word X"). So a third of each batch is
drawn from positions with a harmful token, and a third from positions where such a token is harmless. Where the chosen
token is harmful, plausible tokens that are more likely under the harmful model than under the edited one get the same
label, with weight `1 - pi / pi_harmful`. (SafeInfer, arXiv 2406.12274, masks by such a ratio while decoding; here it is
a label, so that only the gate runs while decoding.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from prosocial.steering.gate import HarmGate

from ..state_files import BLOCK_ROWS, Window, windows, within
from .settings import GateTraining
from .states import GateStates, harmful_at


def train_gate(
    states: GateStates,
    *,
    categories: Sequence[str],
    vocabulary_size: int,
    training: GateTraining,
    seed: int,
    device: torch.device | str = "cpu",
    on_step: Callable[[], None] = lambda: None,
) -> HarmGate:
    """Fit a gate to labelled positions.

    Only the rows of the token table that the losses can reach are trained; AdamW would do no more to the others than
    let them decay, which is done at the end.

    Args:
        states: from `collect_gate_states`, labels [N, C] in the order of `categories`.
        categories: names of the harm categories.
        vocabulary_size: V, rows of the output embedding.
        training: how to train.
        seed: seeds the initial values and the batches.
        device: where to train; the gate is returned on the CPU.
        on_step: called after every step.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        gate = HarmGate(categories, vocabulary_size, hidden_size=states.hidden.shape[1], rank=training.rank)
    generator = torch.Generator().manual_seed(seed)
    profiles = harm_profiles(states, vocabulary_size)
    table = gate.U.detach()
    reached = TokenRows.of(reached_tokens(states, profiles[0]), vocabulary_size)
    gate.U = nn.Parameter(table[reached.tokens])
    gate.to(device)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.steps + 1, pct_start=0.1
    )
    pools = contested_pools(states, vocabulary_size)
    profiles = (reached.at(profiles[0]).to(device), profiles[1].to(device))
    drawn_from = windows(len(states), row_bytes=states.row_bytes, draws=training.batch_size, generator=generator)
    decay = 1.0
    for _, window in zip(range(training.steps), drawn_from, strict=False):
        batch = reached.renumbered(states.rows(_draw(pools, window, training.batch_size, generator)), device)
        loss = label_loss(gate, batch) + training.dense_weight * dense_loss(gate, batch, training.n_dense, generator)
        if training.substitution_weight:
            loss = loss + training.substitution_weight * substitution_loss(gate, batch, profiles, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        decay *= 1 - float(schedule.get_last_lr()[0]) * training.weight_decay
        optimizer.step()
        schedule.step()
        on_step()
    gate.cpu()
    gate.U = nn.Parameter((table * decay).index_copy(0, reached.tokens, gate.U.detach()))
    return gate.eval()


@dataclass(frozen=True)
class TokenRows:
    """Some tokens of a vocabulary, which have rows in a smaller table.

    Attributes:
        tokens: [T], their ids in ascending order.
        row: [V], row of each token in the smaller table; 0 for those that have none.
    """

    tokens: Tensor
    row: Tensor

    @classmethod
    def of(cls, tokens: Tensor, vocabulary_size: int) -> "TokenRows":
        """Return the rows of ascending token ids."""
        row = torch.zeros(vocabulary_size, dtype=torch.long)
        row[tokens] = torch.arange(len(tokens))
        return cls(tokens, row)

    def at(self, tokens: Tensor) -> Tensor:
        """Return the rows of tokens."""
        return self.row[tokens]

    def renumbered(self, states: GateStates, device: torch.device | str) -> GateStates:
        """Return states on a device that name the tokens by their rows."""
        named = replace(states, token=self.at(states.token), candidates=self.at(states.candidates))
        return GateStates(**{name: value.to(device) for name, value in vars(named).items()})


def reached_tokens(states: GateStates, substitutes: Tensor) -> Tensor:
    """Return the ids of the tokens that a loss reaches: chosen ones, plausible ones beside a harm, and substitutes."""
    harmful = torch.split(harmful_at(states).nonzero()[:, 0], BLOCK_ROWS)
    plausible = (torch.unique(states.candidates[part]) for part in harmful)
    tokens: Tensor = torch.unique(torch.cat([torch.unique(states.token), substitutes, *plausible]))
    return tokens.long()


def contested_pools(states: GateStates, vocabulary_size: int) -> list[Tensor]:
    """Return three pools of positions: harmful tokens, the same tokens where they are harmless, and all others.

    An empty pool is left out.
    """
    realises = harmful_at(states)
    contested = torch.zeros(vocabulary_size, dtype=torch.bool)
    contested[states.token[realises]] = True
    is_contested = contested[states.token]
    kinds = (realises, is_contested & ~realises, ~is_contested)
    return [pool for pool in (kind.nonzero()[:, 0] for kind in kinds) if len(pool)]


def _draw(pools: Sequence[Tensor], window: Window, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` positions, as many from each pool, within a window."""
    inside = [within(pool, window) for pool in pools]
    drawn = [pool[torch.randint(len(pool), (count // len(inside),), generator=generator)] for pool in inside]
    return torch.cat(drawn)


def label_loss(gate: HarmGate, states: GateStates) -> Tensor:
    """Return the mean cross-entropy of the chosen tokens' risks against their replies' labels."""
    logits = gate.risk_logits(states.hidden, states.token[:, None])[:, 0]  # [N, C]
    return functional.binary_cross_entropy_with_logits(logits, states.labels)


def dense_loss(gate: HarmGate, states: GateStates, n_dense: int, generator: torch.Generator) -> Tensor:
    """Return the mean cross-entropy of plausible tokens' risks against the label where the chosen token is harmful.

    The weight of a token is `1 - pi / pi_harmful`, at least 0.
    """
    shape = len(states), n_dense
    columns = torch.randint(states.candidates.shape[1], shape, generator=generator).to(states.hidden.device)
    candidates = states.candidates.gather(-1, columns)  # [N, n]
    unaccounted = 1.0 - torch.exp(-states.log_ratio.gather(-1, columns).clamp(min=0.0))  # [N, n]
    weight = unaccounted * harmful_at(states)[:, None]
    targets = states.labels[:, None, :].expand(-1, n_dense, -1)  # [N, n, C]
    losses = functional.binary_cross_entropy_with_logits(
        gate.risk_logits(states.hidden, candidates), targets, reduction="none"
    ).mean(-1)
    return (weight * losses).sum() / weight.sum().clamp(min=1e-6)


def harm_profiles(states: GateStates, vocabulary_size: int) -> tuple[Tensor, Tensor]:
    """Return the tokens [T] that are harmful in most places where they occur, and their mean labels [T, C]."""
    realises = harmful_at(states)
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
    is_mention = torch.isin(states.token, tokens) & ~harmful_at(states)
    hidden = states.hidden[~is_mention]
    if not len(tokens) or not len(hidden):
        return hidden.new_zeros(())
    drawn = torch.randint(len(tokens), (len(hidden),), generator=generator).to(hidden.device)
    logits = gate.risk_logits(hidden, tokens[drawn, None])[:, 0]  # [n, C]
    return functional.binary_cross_entropy_with_logits(logits, labels[drawn])
