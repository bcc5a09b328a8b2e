"""Training only the reached rows of the token table is AdamW on the whole table."""

import pytest
import torch
from torch import nn

from prosocial.steering.gate import HarmGate
from prosocial.training.gate.settings import GateTraining
from prosocial.training.gate.states import GateStates
from prosocial.training.gate.training import (
    _draw,
    contested_pools,
    dense_loss,
    harm_profiles,
    label_loss,
    reached_tokens,
    substitution_loss,
    train_gate,
)

V = 300
TRAINING = GateTraining(
    rank=4, steps=250, batch_size=48, learning_rate=0.02, weight_decay=0.05, n_dense=4, substitution_weight=0.5
)


def make_states() -> GateStates:
    """States in which the tokens from 200 on never come, and those from 100 on are at most plausible."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 8, generator=generator)
    token = torch.randint(0, 100, (400,), generator=generator)
    labels = torch.stack([(token < 20) & (hidden[:, 0] > 0), (token >= 90) & (hidden[:, 1] > 0)], dim=-1).float()
    candidates = torch.randint(0, 200, (400, 6), generator=generator)
    ratio = torch.randn(400, 6, generator=generator)
    zeros = torch.zeros(400, dtype=torch.long)
    return GateStates(hidden, token, labels, candidates, ratio, zeros, zeros)


def trained_densely(states: GateStates) -> HarmGate:
    torch.manual_seed(0)
    gate, generator = HarmGate(["a", "b"], V, 8, TRAINING.rank), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=TRAINING.learning_rate, weight_decay=TRAINING.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, TRAINING.learning_rate, total_steps=TRAINING.steps + 1, pct_start=0.1
    )
    pools, profiles = contested_pools(states, V), harm_profiles(states, V)
    for _ in range(TRAINING.steps):
        batch = states.rows(_draw(pools, None, TRAINING.batch_size, generator))
        loss = label_loss(gate, batch) + TRAINING.dense_weight * dense_loss(gate, batch, TRAINING.n_dense, generator)
        loss = loss + TRAINING.substitution_weight * substitution_loss(gate, batch, profiles, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return gate


def test_training_the_reached_rows_is_training_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    states, sizes = make_states(), []
    expected = trained_densely(states)
    own = nn.functional.embedding
    monkeypatch.setattr(nn.functional, "embedding", lambda ids, table: (sizes.append(len(table)), own(ids, table))[1])
    gate = train_gate(states, categories=["a", "b"], vocabulary_size=V, training=TRAINING, seed=0)

    for name, value in expected.named_parameters():
        assert torch.allclose(gate.get_parameter(name), value, atol=1e-5), name
    torch.manual_seed(0)
    fresh = HarmGate(["a", "b"], V, 8, TRAINING.rank).U
    assert (gate.U[200:] - fresh[200:]).abs().max() > 0.01  # they decay
    assert set(sizes) == {len(reached_tokens(states, harm_profiles(states, V)[0]))} and sizes[0] < 200
