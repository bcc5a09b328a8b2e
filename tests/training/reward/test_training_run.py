"""A training run goes on to the same weights, adds up over micro-batches, and stops where numbers end."""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from prosocial.core.batches import pad_replies
from prosocial.core.errors import DivergenceError, InputError
from prosocial.training import reply_log_probability
from prosocial.training.reward import memory
from prosocial.training.reward import training as training_module
from prosocial.training.reward.accuracy import pair_accuracy
from prosocial.training.reward.attributes import resolve_attributes
from prosocial.training.reward.conflict import CONFLICT_METHODS
from prosocial.training.reward.encoded_pairs import EncodedPairs, label_agreement
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.training.reward.settings import RewardTraining
from prosocial.training.reward.training import train_reward
from prosocial.training.reward.training_run import TrainingRun
from prosocial.training.reward.training_state import StepRecord

from ...largest_tensor import LargestTensor
from ..reward_helpers import NAMES, make_model, make_pairs, make_tokenizer

CONFIG = RewardConfig(attributes=NAMES, targets=r".*\.(q_proj|v_proj)", rank=2, preference_rank=2)
SHORT: dict[str, Any] = {"steps": 6, "batch_size": 4, "learning_rate": 0.02, "checkpoint_every": 2, "log_every": 3}


class KilledError(Exception):
    """Stands for a kill between two steps."""


class World:
    """A model's folder and its pairs."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = make_tokenizer(folder)
        self.pairs = EncodedPairs.from_pairs(make_pairs(6), tokenizer=self.tokenizer, attributes=NAMES, max_tokens=64)

    def reward(self) -> RewardModel:
        torch.manual_seed(0)
        reward = RewardModel(make_model(self.tokenizer), CONFIG)
        for name, parameter in reward.model.named_parameters():
            if "pblora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return reward

    def arguments(self, **changes: Any) -> dict[str, Any]:
        training = RewardTraining(**SHORT | changes)
        return {"attributes": resolve_attributes(NAMES), "training": training, "pad_id": 0, "seed": 1}

    def train(
        self,
        checkpoint: Path | None = None,
        *,
        stop_after: int | None = None,
        on_note: Callable[[str], None] = lambda text: None,
        **changes: Any,
    ) -> tuple[list[Tensor], list[StepRecord]]:
        reward, seen = self.reward(), []

        def on_step() -> None:
            seen.append(1)
            if len(seen) == stop_after:
                raise KilledError

        given = {"checkpoint": checkpoint, "on_step": on_step, "on_note": on_note}
        history = train_reward(reward, self.pairs, **given, **self.arguments(**changes))
        return [parameter.detach() for parameter in reward.parameters], history


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("method", CONFLICT_METHODS)
@pytest.mark.parametrize("preferences", ["pair", "batch"])
def test_a_killed_run_goes_on_to_identical_weights(world: World, tmp_path: Path, method: str, preferences: str) -> None:
    changes = {"conflict": method, "preferences": preferences}
    expected, history = world.train(**changes)
    checkpoint = tmp_path / "state" / "training.safetensors"
    with pytest.raises(KilledError):
        world.train(checkpoint, stop_after=5, **changes)
    found, again = world.train(checkpoint, **changes)

    assert again == history
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_checkpoint_is_gone_on_from_and_not_begun_again(world: World, tmp_path: Path) -> None:
    """The control: a changed checkpoint changes what comes out."""
    checkpoint = tmp_path / "training.safetensors"
    with pytest.raises(KilledError):
        world.train(checkpoint, stop_after=5)
    reward = world.reward()
    run = TrainingRun(reward, world.pairs, **world.arguments())
    run.resume(checkpoint)
    assert len(run.history) == 4
    with torch.no_grad():
        reward.parameters[0].add_(0.1)
    run.save(checkpoint)

    assert not torch.equal(world.train(checkpoint)[0][0], world.train()[0][0])


@pytest.mark.parametrize("method", CONFLICT_METHODS)
def test_micro_batches_give_the_gradient_of_the_whole_batch(world: World, method: str) -> None:
    found = []
    for size in (None, 1, 3):
        reward = world.reward()
        run = TrainingRun(reward, world.pairs, **world.arguments(conflict=method, micro_batch_size=size))
        losses, _ = run.fill_gradients()
        gradients = [parameter.grad for parameter in reward.parameters if parameter.grad is not None]
        found.append((losses, torch.cat([gradient.flatten() for gradient in gradients])))

    assert found[0][1].norm() > 1e-3
    for losses, gradient in found[1:]:
        assert torch.allclose(losses, found[0][0], rtol=1e-4)
        assert (gradient - found[0][1]).norm() < 1e-3 * found[0][1].norm()


def test_one_preference_for_a_batch_makes_the_weights_that_preference(world: World) -> None:
    run = TrainingRun(world.reward(), world.pairs, **world.arguments(preferences="batch"))
    batch = run._batch()

    assert torch.equal(batch.preference, batch.preference[:1].expand_as(batch.preference))
    assert torch.allclose(batch.weights, batch.preference[0])


@pytest.mark.parametrize("method", ["none", "famo"])
def test_every_step_is_logged(world: World, method: str) -> None:
    _, history = world.train(conflict=method)
    _, resolved = world.train(conflict="upgrad")

    assert [record.step for record in history] == list(range(6))
    measured = [record.conflicting_share is not None for record in history]
    assert measured == [True, False, False, True, False, False]
    assert all(record.conflicting_share is not None for record in resolved)
    for record in history:
        weighted = sum(weight * loss for weight, loss in zip(record.weights, record.losses, strict=True))
        assert record.loss == pytest.approx(weighted, rel=1e-5)


def test_a_run_that_leaves_the_numbers_stops_and_keeps_its_last_good_state(world: World, tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    reward, steps = world.reward(), []

    def spoil() -> None:
        steps.append(1)
        if len(steps) == 5:
            torch.nn.init.constant_(reward.parameters[0], float("nan"))

    with pytest.raises(
        DivergenceError, match=r"at step 5: lower the learning rate or beta; .* keeps the state after step 4"
    ):
        train_reward(reward, world.pairs, checkpoint=checkpoint, on_step=spoil, **world.arguments())
    found, history = world.train(checkpoint)

    assert len(history) == 6 and all(bool(tensor.isfinite().all()) for tensor in found)


def test_a_checkpoint_that_does_not_fit_is_set_aside_with_one_line(world: World, tmp_path: Path) -> None:
    checkpoint, notes = tmp_path / "training.safetensors", []
    with pytest.raises(KilledError):
        world.train(checkpoint, stop_after=4)
    other = checkpoint.read_bytes()
    found, _ = world.train(checkpoint, on_note=notes.append, learning_rate=0.01)
    expected, _ = world.train(learning_rate=0.01)
    checkpoint.write_bytes(other[:100])
    world.train(checkpoint, on_note=notes.append)

    assert all(torch.equal(one, another) for one, another in zip(found, expected, strict=True))
    assert "is of other data or settings: it was set aside as training.safetensors.set-aside-1" in notes[0]
    assert "should be a training checkpoint" in notes[1] and len(notes) == 2
    aside = [tmp_path / f"training.safetensors.set-aside-{number}" for number in (1, 2)]
    assert [path.read_bytes() for path in aside] == [other, other[:100]]


def test_what_was_trained_is_kept_before_it_is_measured(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "training.safetensors"
    expected, _ = world.train(checkpoint)
    monkeypatch.setattr(TrainingRun, "fill_gradients", None)  # no step is taken again

    assert all(torch.equal(one, other) for one, other in zip(world.train(checkpoint)[0], expected, strict=True))


def test_slow_steps_are_saved_every_minute(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "MOST_SECONDS_UNSAVED", 0.0)
    checkpoint = tmp_path / "training.safetensors"
    with pytest.raises(KilledError):
        world.train(checkpoint, stop_after=4, checkpoint_every=100)
    run = TrainingRun(world.reward(), world.pairs, **world.arguments(checkpoint_every=100))
    run.resume(checkpoint)

    assert len(run.history) == 3


def gradients(world: World, reward: RewardModel, *, budget: int | None = None, **changes: Any) -> tuple[Tensor, Tensor]:
    """The losses and the gradient of one step."""
    run = TrainingRun(reward, world.pairs, **world.arguments(**changes))
    run._budget = budget or run._budget
    losses, _ = run.fill_gradients()
    return losses, torch.cat(
        [parameter.grad.flatten() for parameter in reward.parameters if parameter.grad is not None]
    )


@pytest.mark.parametrize("method", ["none", "upgrad", "famo"])
def test_batches_of_a_token_budget_or_halved_where_memory_runs_out_give_the_same_step(
    world: World, method: str
) -> None:
    expected_losses, expected = gradients(world, world.reward(), conflict=method, log_every=100)
    tight, rows = world.reward(), []

    def fail(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        rows.append(len(keywords["input_ids"]))
        if rows[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = tight.model.model.register_forward_pre_hook(fail, with_kwargs=True)
    with pytest.raises(torch.OutOfMemoryError):  # the hook is at work
        tight.model.model(input_ids=torch.ones(3, 2, dtype=torch.long))
    for losses, gradient in (
        gradients(world, tight, conflict=method, log_every=100),
        gradients(world, world.reward(), budget=100, conflict=method, log_every=100),
    ):
        assert torch.allclose(losses, expected_losses, rtol=1e-4)
        assert (gradient - expected).norm() < 1e-3 * expected.norm()
    handle.remove()
    assert max(rows) == 8 and rows[-1] == 2


def test_a_pair_that_does_not_fit_is_one_line(world: World) -> None:
    reward = world.reward()
    run = TrainingRun(reward, world.pairs, **world.arguments())
    reward.model.model.register_forward_pre_hook(lambda *given: torch.empty(1 << 60))  # an allocation that really fails
    with pytest.raises(InputError, match="one pair should fit into memory, it does not: set gradient_checkpointing"):
        run.fill_gradients()


def test_a_pair_larger_than_the_free_memory_is_refused_before_the_first_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(InputError, match=r"the longest pair has \d+ tokens and needs about .* set gradient_checkpoint"):
        world.train()


@pytest.mark.parametrize("method", ["none", "upgrad"])
def test_no_tensor_has_a_row_of_logits_for_each_row(world: World, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(reply_log_probability, "MOST_LOGITS", 1 << 15)
    model = make_model(world.tokenizer)
    model.resize_token_embeddings(20_000)
    reward = RewardModel(model, CONFIG)
    with LargestTensor() as largest:
        gradients(world, reward, conflict=method)
    with LargestTensor() as measured:
        pair_accuracy(reward, world.pairs, attributes=NAMES, pad_id=0)

    assert largest.numel < 8 * 20_000, largest.made_by
    assert measured.numel < 12 * 20_000, measured.made_by


def test_an_adapted_output_embedding_is_called_as_it_stands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_log_probability, "MOST_LOGITS", 10_000)  # a few positions at a time
    config = replace(CONFIG, targets=r"lm_head|.*\.v_proj")
    found = []
    for method in ("none", "upgrad"):
        model = make_model(world.tokenizer)
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        torch.manual_seed(1)
        reward = RewardModel(model, config)
        for name, parameter in reward.model.named_parameters():
            if "pblora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        found.append(gradients(world, reward, conflict=method, log_every=100))
    preference, batch = torch.eye(2), pad_replies(world.pairs.sequences, [0, 1, 6, 7], pad_id=0)
    with reward.use(preference.repeat(2, 1)):
        rewards = torch.cat(world.pairs.rewards(reward, [0, 1], preference, 0))
        logits = reward.logits(batch.input_ids, batch.attention_mask, preference.repeat(2, 1)).log_softmax(-1)
        expected = (logits.gather(-1, batch.next_ids[..., None])[..., 0] * batch.predicts_reply).sum(-1)
        ours, theirs = (torch.autograd.grad(value.sum(), reward.parameters) for value in (rewards, expected))

    assert torch.allclose(rewards, expected, atol=1e-3)
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(ours, theirs, strict=True))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-5) and found[0][1].norm() > 1e-3


def test_a_bfloat16_base_trains_a_float32_adapter(world: World) -> None:
    reward = RewardModel(make_model(world.tokenizer).to(torch.bfloat16), CONFIG)
    losses, gradient = gradients(world, reward)
    expected, _ = gradients(world, RewardModel(make_model(world.tokenizer), CONFIG))

    assert {parameter.dtype for parameter in reward.parameters} == {torch.float32} == {gradient.dtype}
    assert torch.allclose(losses, expected, rtol=0.1)


def test_label_agreement_counts_pairs_labelled_for_both() -> None:
    signs = torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, -1.0, 1.0], [0.0, 1.0, 0.0]])

    agreed = pytest.approx(2 / 3)

    assert label_agreement(signs) == [[1.0, agreed, 0.0], [agreed, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert label_agreement(torch.tensor([[1.0, 0.0]]))[0][1] is None


@pytest.mark.parametrize("method", ["none", "upgrad"])
def test_activations_computed_again_give_the_same_gradients(world: World, method: str) -> None:
    found, calls = [], []
    for again in (False, True):
        reward, counted = world.reward(), []
        arguments = world.arguments(conflict=method, gradient_checkpointing=again, log_every=100)
        run = TrainingRun(reward, world.pairs, **arguments)
        run.history.append(StepRecord(0, 0.0, [], [], None))  # a step whose conflicts need no measuring
        reward.model.model.layers[0].self_attn.register_forward_hook(lambda *given, to=counted: to.append(1))
        run.fill_gradients()
        calls.append(len(counted))
        gradients = [parameter.grad for parameter in reward.parameters if parameter.grad is not None]
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))

    assert calls[0] == 1 and calls[1] > 1
    assert found[0].norm() > 1e-3 and torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


def train_as(rank: int, folder: Path, method: str) -> None:
    """One of two processes."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    parameters, _ = World(folder / f"world{rank}").train(conflict=method, steps=3)
    save_file({str(n): tensor for n, tensor in enumerate(parameters)}, folder / f"parameters{rank}.safetensors")


@pytest.mark.parametrize("method", ["none", "upgrad", "famo"])
def test_two_processes_train_what_one_does(world: World, tmp_path: Path, method: str) -> None:
    started = []
    for rank in range(2):
        (tmp_path / f"world{rank}").mkdir()
        process = multiprocessing.get_context("fork").Process(target=train_as, args=(rank, tmp_path, method))
        process.start()
        started.append(process)
    for process in started:
        process.join(timeout=100)
        process.kill()
    first, second = (load_file(tmp_path / f"parameters{rank}.safetensors") for rank in range(2))
    expected, _ = world.train(conflict=method, steps=3)
    untrained = world.reward().parameters

    assert all(torch.equal(first[name], second[name]) for name in first)
    for name, found in first.items():
        assert torch.allclose(found, expected[int(name)], rtol=1e-2, atol=1e-3)
    assert any(not torch.allclose(found, untrained[int(name)], atol=1e-2) for name, found in first.items())
