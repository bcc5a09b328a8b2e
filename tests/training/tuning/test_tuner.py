"""Tuning in bfloat16, in parts that fit into memory, without a batch's logits, and from its checkpoints."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from prosocial.core import batches
from prosocial.core.batches import EncodedReply
from prosocial.core.errors import InputError
from prosocial.core.placement import Placement
from prosocial.editing.checkpoints import load_model
from prosocial.training import reply_log_probability
from prosocial.training.tuning import (
    AdapterTraining,
    EncodedPreference,
    LoraShape,
    PreferenceTuning,
    Tuning,
    train_adapter,
    tune_on_preferences,
    tune_on_replies,
)
from prosocial.training.tuning.preference_tuner import PreferenceTuner
from prosocial.training.tuning.reply_tuner import ReplyTuner
from prosocial.training.tuning.trainer import newest_checkpoint, train

from ...largest_tensor import LargestTensor
from ..reward_helpers import make_model, make_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FAST: dict[str, Any] = {
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "optimizer": "adamw_torch",
    "max_gradient_norm": 1.0,
}
IN_BFLOAT16 = Placement("cpu", "bfloat16")
LORA = LoraShape(rank=4, alpha=8)
FORMS = pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuner") / "base"
    make_model(make_tokenizer(folder)).save_pretrained(folder)
    return folder


def replies(count: int = 8) -> list[EncodedReply]:
    """Replies of different lengths."""
    return [EncodedReply((3, 5, 4 + n % 3), tuple(range(4, 6 + n % 5))) for n in range(count)]


def preferences(count: int = 8) -> list[EncodedPreference]:
    return [EncodedPreference(item, EncodedReply(item.prompt_ids, (9, 7, 6))) for item in replies(count)]


def mean_log_probability(folder: Path) -> float:
    model = load_model(folder)
    total = 0.0
    for item in replies():
        ids = torch.tensor([item.prompt_ids + item.reply_ids])
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        total += float(scores[len(item.prompt_ids) - 1 :].sum())
    return total / len(replies())


class KilledError(Exception):
    """Stands for the end of a process."""


def killed_at(step: int) -> Callable[[], None]:
    taken: list[int] = []

    def on_step() -> None:
        taken.append(0)
        if len(taken) == step:
            raise KilledError

    return on_step


@FORMS
@pytest.mark.parametrize("optimizer", ["adamw_torch", "rmsprop"])
def test_a_model_is_tuned_in_bfloat16_on_a_cpu(
    base: Path, tmp_path: Path, lora: LoraShape | None, optimizer: str
) -> None:
    tuning = Tuning(**FAST | {"optimizer": optimizer, "learning_rate": 3e-3}, lora=lora, most_steps=6)
    tune_on_replies(base, replies(), out=tmp_path / "out", tuning=tuning, seed=0, placement=IN_BFLOAT16)

    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert mean_log_probability(tmp_path / "out") > mean_log_probability(base) + 0.1


@FORMS
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_killed_training_in_bfloat16_ends_in_the_same_weights(
    base: Path, tmp_path: Path, lora: LoraShape | None, kind: str
) -> None:
    settings = {**FAST, "lora": lora, "most_steps": 6, "checkpoint_every": 2}

    def tune(name: str, on_step: Callable[[], None] = lambda: None) -> dict[str, Tensor]:
        common: dict[str, Any] = {"out": tmp_path / name, "scratch": tmp_path / f"{name}-scratch", "seed": 0}
        common |= {"placement": IN_BFLOAT16, "on_step": on_step}
        if kind == "sft":
            tune_on_replies(base, replies(), tuning=Tuning(**settings), **common)
        else:
            tune_on_preferences(base, preferences(), tuning=PreferenceTuning(**settings), **common)
        return load_file(tmp_path / name / "model.safetensors")

    whole = tune("whole")
    with pytest.raises(KilledError):
        tune("killed", killed_at(5))
    resumed = tune("killed")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_killed_harmful_copy_goes_on_and_is_float32(base: Path, tmp_path: Path) -> None:
    training = AdapterTraining(rank=2, alpha=4, steps=20, batch_size=4, learning_rate=0.02)

    def tune(name: str, on_step: Callable[[], None] = lambda: None) -> dict[str, Tensor]:
        train_adapter(
            load_model(base, dtype=torch.bfloat16),
            None,
            replies(),
            out=tmp_path / name,
            training=training,
            seed=0,
            scratch=tmp_path / f"{name}-scratch",
            on_step=on_step,
        )
        return load_file(tmp_path / name / "adapter_model.safetensors")

    whole = tune("whole")
    with pytest.raises(KilledError):
        tune("killed", killed_at(15))
    state = newest_checkpoint(tmp_path / "killed-scratch")
    assert state is not None and state.name == "checkpoint-14"
    resumed = tune("killed")
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in whole.values())
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    PeftModel.from_pretrained(load_model(base), str(tmp_path / "whole"))


class Small(ReplyTuner):
    """A machine with memory for some rows."""

    fits = 1

    def summed_loss(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
        loss = super().summed_loss(model, rows)
        if len(rows) > self.fits:
            torch.autograd.backward(loss * 7)  # part of a gradient is there already
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss


def trained(base: Path, folder: Path, kind: type[ReplyTuner], **changes: Any) -> tuple[ReplyTuner, dict[str, Tensor]]:
    tuning = Tuning(**FAST | changes, most_steps=3)
    tuner = kind(load_model(base), replies(), tuning=tuning, folder=folder, seed=0)
    train(tuner, folder, lambda: None)
    return tuner, {name: weight.detach().clone() for name, weight in tuner.model.named_parameters()}


def test_a_batch_that_does_not_fit_is_halved_with_the_same_update(base: Path, tmp_path: Path) -> None:
    _, whole = trained(base, tmp_path / "whole", ReplyTuner)
    tuner, parts = trained(base, tmp_path / "parts", Small)
    _, accumulated = trained(base, tmp_path / "accumulated", ReplyTuner, batch_size=2, accumulation=2)

    assert tuner.at_once == 1
    for name, weight in whole.items():
        assert torch.allclose(parts[name], weight, atol=2e-4), name
        assert torch.allclose(accumulated[name], weight, atol=2e-4), name


def test_little_free_memory_makes_smaller_parts(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = trained(base, tmp_path / "whole", ReplyTuner)
    monkeypatch.setattr(batches, "free_bytes", lambda device: 0)
    tuner, parts = trained(base, tmp_path / "parts", ReplyTuner)

    assert tuner.at_once == 1
    for name, weight in whole.items():
        assert torch.allclose(parts[name], weight, atol=2e-4), name


def test_a_row_that_does_not_fit_is_one_line_and_nothing_is_lost(base: Path, tmp_path: Path) -> None:
    class Tiny(Small):
        def summed_loss(self, model: nn.Module, rows: Sequence[int]) -> Tensor:
            self.fits = 0 if self.state.global_step == 2 else 1
            return super().summed_loss(model, rows)

    with pytest.raises(InputError, match=r"1 rows of up to \d+ tokens should fit into memory, they do not: choose --d"):
        trained(base, tmp_path, Tiny, checkpoint_every=1)
    last = newest_checkpoint(tmp_path)
    assert last is not None and last.name == "checkpoint-2"


@pytest.mark.parametrize("kind", [ReplyTuner, PreferenceTuner])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_of_a_batch_are_never_made(
    base: Path, tmp_path: Path, kind: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_log_probability, "MOST_LOGITS", 512)
    rows: Any = replies(32) if kind is ReplyTuner else preferences(32)
    model = load_model(base, dtype=dtype)
    n_logits = 32 * max(item.length for item in rows) * model.config.vocab_size
    settings = Tuning if kind is ReplyTuner else PreferenceTuning
    tuning = settings(**FAST | {"batch_size": 32}, lora=LORA, most_steps=1)
    tuner = kind(model, rows, tuning=tuning, folder=tmp_path, seed=0)
    with LargestTensor() as largest:
        train(tuner, tmp_path, lambda: None)
    assert largest.numel < n_logits / 2, largest.made_by


def test_float16_is_refused_in_one_line(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="should be tuned in float32 or bfloat16"):
        tune_on_replies(
            base, replies(), out=tmp_path / "out", tuning=Tuning(), seed=0, placement=Placement("cpu", "float16")
        )


def test_examples_that_are_too_long_are_left_out(base: Path, tmp_path: Path) -> None:
    training = AdapterTraining(steps=1, max_tokens=3)
    with pytest.raises(InputError, match="at least one row should fit into max_tokens 3, none does"):
        train_adapter(load_model(base), None, replies(), out=tmp_path / "out", training=training, seed=0)


@pytest.mark.parametrize("missing", ["model.safetensors", "optimizer.safetensors", "trainer_state.json"])
def test_a_checkpoint_without_its_files_is_no_checkpoint(tmp_path: Path, missing: str) -> None:
    for step in (1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("model.safetensors", "optimizer.safetensors"):
            (folder / name).touch()
        (folder / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"

    (tmp_path / "checkpoint-2" / missing).unlink()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
