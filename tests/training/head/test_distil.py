"""The head imitates its teacher where a bilinear head can, and does nothing where the teacher does nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prosocial.core.batches import EncodedReply, encode_reply
from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.core.progress import SilentProgress
from prosocial.steering.head import CompactHead
from prosocial.training.head.distance import distance_by_rank, head_distance
from prosocial.training.head.distil import collect_passes, distil_head, training_preferences
from prosocial.training.head.from_reward import distil, teacher_states
from prosocial.training.head.settings import DistilTraining
from prosocial.training.head.states import TeacherStates, collect_states
from prosocial.training.reply_sampling import ReplySampling
from prosocial.training.reward.loss import preference_grid
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.training.state_files import StateFiles

from ..reward_helpers import NAMES, USEFUL, WARM, make_model, make_pairs, make_tokenizer

H, V, K = 16, 40, 12


class Counted(SilentProgress):
    """Counts the steps."""

    total: int | None = 0
    done = 0

    def start(self, total: int | None, description: str) -> None:
        self.total, self.done = total, 0

    def advance(self, n: int = 1, *, tokens: int = 0) -> None:
        self.done += n


def synthetic(n_rows: int, teacher: CompactHead, weight: torch.Tensor, seed: int) -> TeacherStates:
    """States of a teacher that is itself a head of low rank."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n_rows, H, generator=generator)
    preference = preference_grid(n_rows, 2, concentration=0.5, generator=generator)
    z0, candidates = (hidden @ weight.T).topk(K, dim=-1)
    with torch.no_grad():
        shift = (teacher(hidden, preference) @ weight.T).gather(-1, candidates)
    return TeacherStates(hidden, candidates, z0, torch.arange(n_rows), preference, shift)


def joined(parts: list[TeacherStates]) -> TeacherStates:
    return parts[0].appended(parts[1], StateFiles(columns={**vars(parts[0])}))


@pytest.fixture
def taught() -> tuple[TeacherStates, TeacherStates, torch.Tensor]:
    """Training and held-out states of a teacher of rank 4, and the output embedding."""
    torch.manual_seed(0)
    teacher, weight = CompactHead(NAMES, H, 4), torch.randn(V, H) * 0.3
    torch.nn.init.normal_(teacher.B, std=0.5)
    return synthetic(3000, teacher, weight, 0), synthetic(500, teacher, weight, 1), weight


def make_reward(folder: Path, *, trained: bool = False) -> tuple[RewardModel, list[EncodedReply]]:
    """Return a reward model over a pico model, its adapter moved away from zero if `trained`, and some replies."""
    tokenizer = make_tokenizer(folder)
    reward = RewardModel(make_model(tokenizer), RewardConfig(attributes=NAMES, targets=r".*\.v_proj"))
    if trained:
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in reward.parameters:
                parameter.add_(0.3 * torch.randn_like(parameter))
    messages = [{"role": "user", "content": "how do i improve my garden plan?"}]
    return reward, [encode_reply(tokenizer, messages, text) for text in (WARM, USEFUL, "list.")]


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl"])
def test_a_teacher_of_the_same_form_is_learned(
    taught: tuple[TeacherStates, TeacherStates, torch.Tensor], loss: str
) -> None:
    train, held_out, weight = taught
    training = DistilTraining.model_validate(
        {"rank": 4, "steps": 400, "batch_size": 256, "learning_rate": 0.02, "loss": loss}
    )
    untrained = head_distance(CompactHead(NAMES, H, 4), held_out, weight, inverse_beta=1.0)
    assert untrained.explained == 0.0 and untrained.top1 < 0.9
    head = distil_head(train, weight, attributes=NAMES, training=training, seed=0)
    learned = head_distance(head, held_out, weight, inverse_beta=1.0)
    assert learned.explained > 0.9 and learned.top1 > untrained.top1


def test_a_teacher_that_pulls_mixtures_harder_is_learned_by_the_mixture_gain_alone() -> None:
    torch.manual_seed(0)
    teacher, weight = CompactHead(NAMES, H, 4), torch.randn(V, H) * 0.3
    torch.nn.init.normal_(teacher.B, std=0.5)
    torch.nn.init.constant_(teacher.mixture_gain, 1.5)
    train, held_out = synthetic(3000, teacher, weight, 0), synthetic(500, teacher, weight, 1)
    heads = [
        distil_head(
            train,
            weight,
            attributes=NAMES,
            training=DistilTraining(rank=4, steps=400, batch_size=256, learning_rate=0.02, mixture_gain=learns),
            seed=0,
        )
        for learns in (True, False)
    ]
    learned, plain = (head_distance(head, held_out, weight, inverse_beta=1.0) for head in heads)
    assert heads[0].mixture_gain.item() == pytest.approx(1.5, abs=0.3) and heads[1].mixture_gain.item() == 0.0
    assert plain.kl > 2 * learned.kl


def test_more_rank_comes_nearer_up_to_the_teachers_own(
    taught: tuple[TeacherStates, TeacherStates, torch.Tensor],
) -> None:
    train, held_out, weight = taught
    training = DistilTraining(steps=300, batch_size=256, learning_rate=0.02)
    found = distance_by_rank(train, held_out, weight, attributes=NAMES, training=training, ranks=(1, 4), seed=0)
    assert list(found) == [1, 4] and found[1].kl > 2 * found[4].kl


def test_the_distance_is_the_mean_of_the_formula(taught: tuple[TeacherStates, TeacherStates, torch.Tensor]) -> None:
    _, states, weight = taught
    torch.manual_seed(5)
    head = CompactHead(NAMES, H, 3)
    torch.nn.init.normal_(head.B, std=0.2)
    total = 0.0
    for row in range(20):
        candidates, z0 = states.candidates[row], states.z0[row]
        teacher = (z0 + 0.5 * states.shift[row]).softmax(-1)
        shift = weight[candidates] @ head(states.hidden[row], states.preference[row]).detach()
        student = (z0 + 0.5 * shift).softmax(-1)
        total += float((teacher * (teacher / student).log()).sum())
    found = head_distance(head, states.rows(torch.arange(20)), weight, inverse_beta=0.5)
    assert found.kl == pytest.approx(total / 20, rel=1e-4)


def test_an_untrained_reward_model_asks_for_no_shift(tmp_path: Path) -> None:
    reward, sequences = make_reward(tmp_path)
    states = collect_states(reward, sequences, torch.eye(2)[[0, 1, 0]], plausible_k=K, pad_id=0)
    assert len(states) == sum(len(item.reply_ids) for item in sequences)
    assert states.shift.abs().max() < 1e-5
    weight = reward.model.get_output_embeddings().weight  # type: ignore[operator,union-attr]
    assert torch.allclose((states.hidden @ weight.T).gather(-1, states.candidates), states.z0, atol=1e-4)


def test_passes_read_every_sequence_under_new_preferences(tmp_path: Path) -> None:
    reward, sequences = make_reward(tmp_path)
    seen: list[int] = []
    training = DistilTraining(passes=3, plausible_k=K)
    states = collect_passes(reward, sequences[:1] * 6, training=training, pad_id=0, seed=0, on_batch=seen.append)
    n_positions = 6 * len(sequences[0].reply_ids)
    assert sum(seen) == 18 and len(states) == 3 * n_positions and len(states.hidden) == n_positions
    assert len(torch.unique(states.preference, dim=0)) > 3


def test_one_reading_of_two_passes_is_two_readings(tmp_path: Path) -> None:
    reward, sequences = make_reward(tmp_path, trained=True)
    asked = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [[0.2, 0.8], [0.9, 0.1], [0.5, 0.5]]])
    at_once = collect_states(reward, sequences, asked, plausible_k=K, pad_id=0)
    apart = joined([collect_states(reward, sequences, one, plausible_k=K, pad_id=0) for one in asked])
    every = torch.arange(len(apart))
    for name in ("hidden", "candidates", "z0", "preference", "shift"):
        assert torch.equal(getattr(at_once.rows(every), name), getattr(apart.rows(every), name)), name
    assert at_once.shift.abs().max() > 1e-3


def test_joined_readings_keep_their_own_positions(tmp_path: Path) -> None:
    reward, sequences = make_reward(tmp_path, trained=True)
    parts = [
        collect_states(reward, [one], torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), plausible_k=K, pad_id=0)
        for one in sequences[:2]
    ]
    both = joined(parts)
    rows = both.rows(torch.arange(len(both)))
    assert torch.equal(rows.hidden, torch.cat([part.hidden[part.position] for part in parts]))
    assert torch.equal(rows.candidates, torch.cat([part.candidates[part.position] for part in parts]))


def test_the_drafts_own_replies_are_read_under_the_preferences_that_they_were_drawn_with(tmp_path: Path) -> None:
    reward, sequences = make_reward(tmp_path, trained=True)
    tokenizer, prompts = ChatTokenizer(tmp_path), [pair.messages for pair in make_pairs(2)]
    training = DistilTraining(rank=2, plausible_k=K, passes=1, on_policy=7, steps=4, batch_size=8)
    sampling = ReplySampling(max_new_tokens=3)
    more, data = (
        teacher_states(reward, sequences, prompts, tokenizer=tokenizer, training=each, sampling=sampling, seed=0)
        for each in (training, training.model_copy(update={"on_policy": 0}))
    )
    assert len(data) == sum(len(item.reply_ids) for item in sequences)
    for name in ("preference", "shift"):
        assert torch.equal(getattr(more, name)[: len(data)], getattr(data, name)), name
    own = more.preference[len(data) :]
    expected = training_preferences(7, len(NAMES), training, seed=1)
    assert 7 <= len(own) <= 7 * (3 + 1)  # replies of up to three tokens, and an end token
    assert {tuple(row) for row in own.tolist()} == {tuple(row) for row in expected.tolist()}


def test_distilling_a_reward_model_measures_the_head_for_each_attribute(tmp_path: Path) -> None:
    reward, _ = make_reward(tmp_path, trained=True)
    training = DistilTraining(rank=4, plausible_k=K, passes=2, on_policy=4, steps=60, batch_size=64, learning_rate=0.02)
    progress = Counted()
    distilled = distil(
        reward,
        make_pairs(12),
        tokenizer=ChatTokenizer(tmp_path),
        training=training,
        sampling=ReplySampling(max_new_tokens=3),
        progress=progress,
    )
    assert set(distilled.distances) == set(NAMES) and distilled.head.attributes == NAMES
    assert all(0.0 < distance.explained <= 1.0 for distance in distilled.distances.values())
    assert progress.done == progress.total == 22 * 2 + 4  # 11 pairs to train on, the draft's replies
    distilled.save(tmp_path / "head", checkpoint_fingerprint="f")
    assert CompactHead.load(tmp_path / "head").extra["explained_share"].keys() == set(NAMES)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # peft's
def test_a_reward_model_that_adapts_the_output_embedding_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    reward = RewardModel(make_model(tokenizer), RewardConfig(attributes=NAMES, targets=r"lm_head"))
    with pytest.raises(InputError, match="below the output embedding only, but its targets 'lm_head'"):
        distil(reward, make_pairs(4), tokenizer=tokenizer, training=DistilTraining())


def test_one_pair_is_too_few_to_distil(tmp_path: Path) -> None:
    reward, _ = make_reward(tmp_path)
    with pytest.raises(InputError, match="at least 2 pairs, one to train on and one held out, found 1"):
        distil(reward, make_pairs(1), tokenizer=ChatTokenizer(tmp_path), training=DistilTraining())


def test_a_teacher_that_is_no_number_stops_the_fit_with_one_line(
    taught: tuple[TeacherStates, TeacherStates, torch.Tensor],
) -> None:
    train, _, weight = taught
    broken = replace(train, shift=torch.full_like(train.shift, torch.nan))
    with pytest.raises(InputError, match="found nan at step 0 of 5"):
        distil_head(broken, weight, attributes=NAMES, training=DistilTraining(rank=2, steps=5), seed=0)


def test_the_grid_holds_corners_uniform_and_draws() -> None:
    grid = preference_grid(60, 5, concentration=0.4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(grid.sum(-1), torch.ones(60), atol=1e-5)
    assert int((grid == 1).any(-1).sum()) >= 20 and int((grid == 0.2).all(-1).sum()) == 10
