"""`prosocial reward train`: from labelled pairs to a folder that peft reads, in one process or several."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from prosocial.cli.main import main
from prosocial.core.progress import SilentProgress
from prosocial.editing.checkpoints import load_model
from prosocial.recipes.reading.settings import read_settings
from prosocial.recipes.steering.reward_training import train_on_pairs
from prosocial.recipes.steering.schema import RewardSettings
from prosocial.training.reward.attributes import resolve_attributes
from prosocial.training.reward.pairs import write_pairs
from prosocial.training.reward.pblora import use_preference
from prosocial.training.reward.training_run import TrainingRun

from ..training.reward_helpers import NAMES, make_model, make_pairs, make_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's
FLOAT32 = ("--dtype", "float32")
SET = ("--set", "steps=4", "--set", "batch_size=4", "--set", "conflict=pcgrad", "--set", "adapter.rank=2")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    make_model(make_tokenizer(folder / "base")).save_pretrained(folder / "base")
    write_pairs(folder / "pairs.jsonl", make_pairs(20))
    return folder


def words(given: Path, out: Path, *more: str) -> list[str]:
    chosen = ("--attributes", "empathy,helpfulness", *SET, *more)
    return ["reward", "train", str(given / "base"), "--pairs", str(given / "pairs.jsonl"), "-o", str(out), *chosen]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_a_trained_folder_is_one_that_peft_reads(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(given, tmp_path / "out", "--json")) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["reward"] == str(tmp_path / "out") and "accuracy on held-out pairs" in found["said"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    model = PeftModel.from_pretrained(load_model(given / "base"), str(tmp_path / "out"))
    ids = torch.tensor([[3, 7, 11]])
    with torch.no_grad(), use_preference(model, {"empathy": 1.0}):
        adapted = model(input_ids=ids).logits
    with torch.no_grad():
        assert not torch.allclose(adapted, model(input_ids=ids).logits)


def test_the_seed_alone_says_what_comes_out(given: Path, tmp_path: Path) -> None:
    for name, seed in (("one", "3"), ("two", "3"), ("other", "4")):
        torch.manual_seed(hash(name) % 1000)  # what ran before in this process
        assert main(words(given, tmp_path / name, "--seed", seed)) == 0
    one, two, other = (weights(tmp_path / name) for name in ("one", "two", "other"))

    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "bets=1"), "unknown key bets"),
        (("--set", "beta.warmth=1"), "unknown attribute 'warmth'"),
        (("--attributes", "empathy,brevity"), "unknown attribute 'brevity'"),
        (("--attributes", "empathy,truthfulness,helpfulness"), "found none for truthfulness"),
        (("--attributes", "empathy"), "unknown attribute 'helpfulness'"),
        (("--rubric", "brevity"), "--rubric should be NAME=TEXT"),
        (("--set", "adapter.targets=nothing"), "found no match"),
        (("--device", "cuda:99"), "a device should be auto or one that torch sees"),
    ],
)
def test_what_is_wrong_is_one_line(
    given: Path, tmp_path: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(given, tmp_path / "out", *more)) == 2

    assert len([line for line in capsys.readouterr().err.splitlines() if said in line]) == 1
    assert list(tmp_path.iterdir()) == []


class KilledError(Exception):
    """Stands for a kill."""


class KilledWhileMeasuring(SilentProgress):
    """Raises once the training is done."""

    def start(self, total: int | None, description: str) -> None:
        if description.startswith("measure"):
            raise KilledError


def kill_while_measuring(given: Path, out: Path) -> None:
    """Do what `words` says up to the measuring."""
    settings = read_settings(RewardSettings, [word for word in SET if word != "--set"])
    with pytest.raises(KilledError):
        train_on_pairs(
            given / "base",
            given / "pairs.jsonl",
            attributes=resolve_attributes(NAMES),
            settings=settings,
            out=out,
            checkpoint=out.with_name(f".{out.name}.checkpoint.safetensors"),
            progress=KilledWhileMeasuring(),
        )


def test_what_is_killed_while_measuring_goes_on_there(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(words(given, tmp_path / "expected", *FLOAT32)) == 0
    kill_while_measuring(given, tmp_path / "out")
    monkeypatch.setattr(TrainingRun, "fill_gradients", None)  # no step is taken again
    assert main(words(given, tmp_path / "out", *FLOAT32)) == 0
    found, expected = weights(tmp_path / "out"), weights(tmp_path / "expected")

    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out"]


@pytest.mark.parametrize("change", [("--set", "learning_rate=0.001"), ("--dtype", "bfloat16"), ("--seed", "5")])
def test_a_training_of_other_settings_is_set_aside_with_one_line(
    given: Path, tmp_path: Path, change: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    kill_while_measuring(given, tmp_path / "out")
    assert main(words(given, tmp_path / "out", *FLOAT32, *change)) == 0
    lines = capsys.readouterr().err.splitlines()

    assert len([line for line in lines if "was set aside as .out.checkpoint.safetensors.set-aside-1" in line]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.checkpoint.safetensors.set-aside-1", "out"]


def test_a_tokenizer_with_ids_that_the_model_lacks_is_refused(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(given / "base")
    model.resize_token_embeddings(60)
    base = shutil.copytree(given / "base", tmp_path / "small")
    model.save_pretrained(base)
    given_words = [str(base) if word == str(given / "base") else word for word in words(given, tmp_path / "out")]
    assert main(given_words) == 2

    assert "should have ids below the model's 60 tokens, a pair has id" in capsys.readouterr().err


@pytest.mark.prove
def test_accelerate_trains_in_two_processes_what_one_trains(given: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--num_cpu_threads_per_process", "1", "-m", "prosocial.cli.main"]
    done = subprocess.run([*launch, *words(given, tmp_path / "two")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert main(words(given, tmp_path / "one")) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")

    assert done.stderr.count("accuracy on held-out pairs") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert all(torch.allclose(one[name], two[name], rtol=1e-2, atol=1e-3) for name in one)
