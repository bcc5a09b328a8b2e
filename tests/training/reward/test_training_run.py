"""A training run goes on to the same weights, adds up over micro-batches, and stops where numbers end."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from prosocial.core.errors import DivergenceError, InputError
from prosocial.training.reward.attributes import resolve_attributes
from prosocial.training.reward.conflict import CONFLICT_METHODS
from prosocial.training.reward.encoded_pairs import EncodedPairs, label_agreement
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.training.reward.settings import RewardTraining
from prosocial.training.reward.training import train_reward
from prosocial.training.reward.training_run import TrainingRun
from prosocial.training.reward.training_state import StepRecord

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
        self, checkpoint: Path | None = None, *, stop_after: int | None = None, **changes: Any
    ) -> tuple[list[Tensor], list[StepRecord]]:
        reward, seen = self.reward(), []

        def on_step() -> None:
            seen.append(1)
            if len(seen) == stop_after:
                raise KilledError

        history = train_reward(reward, self.pairs, checkpoint=checkpoint, on_step=on_step, **self.arguments(**changes))
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


def test_a_checkpoint_of_another_run_is_refused(world: World, tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.safetensors"
    with pytest.raises(KilledError):
        world.train(checkpoint, stop_after=4)
    with pytest.raises(InputError, match="found other data or settings"):
        world.train(checkpoint, learning_rate=0.01)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(InputError, match="should be a training checkpoint"):
        world.train(checkpoint)


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
