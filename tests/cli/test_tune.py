"""`prosocial tune` is one training by itself; `accelerate launch` runs it in several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prosocial.cli.main import main
from prosocial.core.files import write_jsonl
from prosocial.editing.checkpoints import Checkpoint

from ..training.reward_helpers import USEFUL, WARM, make_model, make_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FSDP: tuple[str, ...] = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")
FSDP += ("--fsdp_state_dict_type", "FULL_STATE_DICT")
DATA_PARALLEL = ["--cpu", "-m", "prosocial.cli.main"]
LORA = ("--set", "lora.rank=4")
SET = ("--set", "most_steps=2", "--set", "batch_size=2", "--set", "learning_rate=0.01", "--set", "warmup_steps=0")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    make_model(make_tokenizer(folder / "base")).save_pretrained(folder / "base")
    messages = [{"role": "system", "content": "do no harm."}, {"role": "user", "content": "how do i start?"}]
    row = {"messages": messages, "chosen": WARM, "rejected": USEFUL}
    write_jsonl(folder / "pairs.jsonl", [row] * 8)
    write_jsonl(folder / "replies.jsonl", [{"messages": messages, "reply": WARM}] * 8)
    return folder


def words(given: Path, out: Path, *more: str) -> list[str]:
    return ["tune", str(given / "base"), "--rows", str(given / "pairs.jsonl"), "--out", str(out), *more]


def test_a_training_gives_a_checkpoint_and_leaves_nothing_beside_it(given: Path, tmp_path: Path) -> None:
    assert main(words(given, tmp_path / "out", "--method", "dpo", *SET)) == 0

    assert Checkpoint.open(tmp_path / "out").fingerprint() != Checkpoint.open(given / "base").fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_training_that_ends_in_its_warm_up_says_so(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first update has a learning rate of 0: one update alone gives the base again."""
    settings = ("--set", "most_steps=1", "--set", "warmup_steps=9")
    assert main(words(given, tmp_path / "out", "--method", "dpo", *settings)) == 0
    assert "the learning rate reached 0% of its peak: lower warmup_steps" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--method", "ppo"), "unknown method 'ppo' (did you mean dpo?): known are dpo, sft"),
        (("--set", "beta=1"), "unknown key beta"),
        (("--set", "learning_rate=0"), "learning_rate"),
        (("--dtype", "float16"), "a model should be tuned in float32 or bfloat16, the value is float16"),
        (("--device", "cuda:99"), "a device should be auto or one that torch sees on this machine"),
        (("--method", "dpo", "--set", "max_tokens=3"), "at least one row should fit into max_tokens 3, found none"),
    ],
)
def test_what_is_wrong_is_one_line(
    given: Path, tmp_path: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(given, tmp_path / "out", *more)) == 2

    errors = [line for line in capsys.readouterr().err.splitlines() if said in line]
    assert len(errors) == 1
    assert not (tmp_path / "out").exists()


def test_rows_of_other_formats_give_the_same_weights(given: Path, tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "do no harm."}, {"role": "user", "content": "how do i start?"}]
    warm, useful = ([{"role": "assistant", "content": text}] for text in (WARM, USEFUL))
    forms = [
        {"messages": asked, "chosen": WARM, "rejected": USEFUL},
        {"prompt": asked, "chosen": warm, "rejected": useful, "score": None},
        {"chosen": asked + warm, "rejected": asked + useful},
    ]
    weights = set()
    for number, row in enumerate(forms):
        write_jsonl(tmp_path / "rows.jsonl", [row] * 4)
        out = tmp_path / f"out{number}"
        assert main(words(given, out, "--method", "dpo", *SET, "--rows", str(tmp_path / "rows.jsonl"))) == 0
        weights.add(Checkpoint.open(out).fingerprint())
    assert len(weights) == 1


@pytest.mark.parametrize(
    ("method", "row", "said"),
    [
        ("sft", {"messages": [{"role": "user", "content": "how?"}]}, "should end in a message of the assistant"),
        ("sft", {"text": "once upon a time"}, "row 1 should hold a reply"),
        ("sft", {"prompt": "how?", "completion": ["so."]}, "should be a message with role and content"),
        ("dpo", {"chosen": "how? so.", "rejected": "how? no."}, "should hold a prompt"),
        ("dpo", {"prompt": "how?", "chosen": "so.", "rejected": None}, "missing rejected"),
    ],
)
def test_rows_that_cannot_be_read_are_one_line(
    given: Path, tmp_path: Path, method: str, row: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [row])
    assert main(words(given, tmp_path / "out", "--method", method, "--rows", str(tmp_path / "rows.jsonl"))) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if said in line]) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [("--set", "bf16=true", "--dtype", "float32"), ("--dtype", "bfloat16")])
def test_a_cpu_tunes_in_bfloat16(
    given: Path, tmp_path: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(given, tmp_path / "out", "--method", "dpo", *SET, "--device", "cpu", *more, "--json")) == 0

    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    report = json.loads(capsys.readouterr().out)
    assert (report["device"], report["dtype"]) == ("cpu", "bfloat16")


def test_what_a_failed_training_left_does_not_stop_another(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second step of this training makes every weight infinite."""
    diverging = ("--set", "learning_rate=3e38", "--set", "warmup_steps=1", "--set", "checkpoint_every=1")
    assert main(words(given, tmp_path / "out", "--method", "dpo", "--set", "most_steps=4", *diverging)) != 0
    capsys.readouterr()
    assert main(words(given, tmp_path / "out", "--method", "dpo", *SET)) == 0

    lines = [line for line in capsys.readouterr().err.splitlines() if "set aside" in line]
    assert len(lines) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.checkpoints.set-aside-1", "out"]


def launched(command: list[str], *, sharded: bool) -> "subprocess.CompletedProcess[str]":
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    launch += [*FSDP, str(Path(__file__).parents[1] / "fsdp_on_cpu.py")] if sharded else DATA_PARALLEL
    on_cpu = os.environ | ({"ACCELERATE_TORCH_DEVICE": "cpu"} if sharded else {})
    return subprocess.run([*launch, *command], capture_output=True, text=True, timeout=400, env=on_cpu)


@pytest.mark.prove
@pytest.mark.parametrize("sharded", [False, True], ids=["data parallel", "fsdp"])
@pytest.mark.parametrize("lora", [(), LORA], ids=["full", "lora"])
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_two_processes_train_as_one_does(
    given: Path, tmp_path: Path, method: str, lora: tuple[str, ...], sharded: bool
) -> None:
    """Two processes take a half of each batch, and one of them writes."""
    rows = given / ("pairs.jsonl" if method == "dpo" else "replies.jsonl")
    common = ("--method", method, "--rows", str(rows), *SET, *lora, "--dtype", "float32")
    done = launched(words(given, tmp_path / "out", *common, "--set", "batch_size=1"), sharded=sharded)

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("mean loss") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert main(words(given, tmp_path / "alone", *common)) == 0
    together, alone = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "alone"))
    assert together.keys() == alone.keys()
    for name, tensor in alone.items():
        assert torch.allclose(together[name], tensor, atol=2e-3), name  # of steps of up to .1
