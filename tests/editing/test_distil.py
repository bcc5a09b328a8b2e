"""The head imitates its teacher where a bilinear head can, and does nothing where the teacher does nothing."""

from pathlib import Path

import torch

from prosocial.editing.batches import encode_reply
from prosocial.editing.head.distil import (
    DistilTraining,
    TeacherStates,
    collect_passes,
    collect_states,
    distil_head,
    explained_share,
)
from prosocial.editing.head.module import CompactHead
from prosocial.editing.reward.loss import preference_grid
from prosocial.editing.reward.model import RewardConfig, RewardModel

from .reward_helpers import NAMES, USEFUL, WARM, make_model, make_tokenizer

H, V, K = 16, 40, 12


def synthetic(n_rows: int, teacher: CompactHead, weight: torch.Tensor, seed: int) -> TeacherStates:
    """States of a teacher that is itself a head of low rank."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n_rows, H, generator=generator)
    preference = preference_grid(n_rows, 2, concentration=0.5, generator=generator)
    z0, candidates = (hidden @ weight.T).topk(K, dim=-1)
    with torch.no_grad():
        shift = (teacher(hidden, preference) @ weight.T).gather(-1, candidates)
    return TeacherStates(hidden, preference, candidates, z0, shift)


def test_a_teacher_of_the_same_form_is_learned() -> None:
    torch.manual_seed(0)
    teacher, weight = CompactHead(NAMES, H, 4), torch.randn(V, H) * 0.3
    torch.nn.init.normal_(teacher.B, std=0.5)
    train, held_out = synthetic(3000, teacher, weight, 0), synthetic(500, teacher, weight, 1)
    training = DistilTraining(rank=4, steps=400, batch_size=256, learning_rate=0.02)
    untrained = CompactHead(NAMES, H, 4)
    assert explained_share(untrained, held_out, weight, inverse_beta=1.0) == 0.0
    head = distil_head(train, weight, attributes=NAMES, training=training, seed=0)
    assert explained_share(head, held_out, weight, inverse_beta=1.0) > 0.9


def test_an_untrained_reward_model_asks_for_no_shift(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    reward = RewardModel(make_model(tokenizer), RewardConfig(attributes=NAMES, targets=r".*\.v_proj"))
    messages = [{"role": "user", "content": "how do i improve my garden plan?"}]
    sequences = [encode_reply(tokenizer, messages, text) for text in (WARM, USEFUL, "list.")]
    states = collect_states(reward, sequences, torch.eye(2)[[0, 1, 0]], plausible_k=K, pad_id=0)
    assert len(states) == sum(len(item.reply_ids) for item in sequences)
    assert states.shift.abs().max() < 1e-5
    weight = reward.model.get_output_embeddings().weight  # type: ignore[operator,union-attr]
    assert torch.allclose((states.hidden @ weight.T).gather(-1, states.candidates), states.z0, atol=1e-4)


def test_passes_read_every_sequence_under_new_preferences(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    reward = RewardModel(make_model(tokenizer), RewardConfig(attributes=NAMES, targets=r".*\.v_proj"))
    sequence = encode_reply(tokenizer, [{"role": "user", "content": "how"}], WARM)
    seen: list[int] = []
    training = DistilTraining(passes=3, plausible_k=K)
    states = collect_passes(reward, [sequence] * 6, training=training, pad_id=0, seed=0, on_batch=seen.append)
    assert sum(seen) == 18 and len(states) == 18 * len(sequence.reply_ids)
    assert len(torch.unique(states.preference, dim=0)) > 3


def test_the_grid_holds_corners_uniform_and_draws() -> None:
    grid = preference_grid(60, 5, concentration=0.4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(grid.sum(-1), torch.ones(60), atol=1e-5)
    assert int((grid == 1).any(-1).sum()) >= 20 and int((grid == 0.2).all(-1).sum()) == 10
