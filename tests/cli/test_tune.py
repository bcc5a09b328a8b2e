"""`prosocial tune` is one training by itself; `accelerate launch` runs it in several processes."""

import subprocess
import sys
from pathlib import Path

import pytest

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
SET = ("--set", "most_steps=2", "--set", "batch_size=2", "--set", "learning_rate=0.01", "--set", "warmup_steps=0")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    make_model(make_tokenizer(folder / "base")).save_pretrained(folder / "base")
    messages = [{"role": "system", "content": "do no harm."}, {"role": "user", "content": "how do i start?"}]
    write_jsonl(folder / "pairs.jsonl", [{"messages": messages, "chosen": WARM, "rejected": USEFUL}] * 8)
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


@pytest.mark.prove
def test_accelerate_runs_it_in_two_processes_and_one_of_them_writes(given: Path, tmp_path: Path) -> None:
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    command = [*launch, "-m", "prosocial.cli.main", *words(given, tmp_path / "out", "--method", "dpo", *SET)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("mean loss") == 1
    assert Checkpoint.open(tmp_path / "out").fingerprint() != Checkpoint.open(given / "base").fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
