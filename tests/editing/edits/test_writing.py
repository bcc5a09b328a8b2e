"""Writing an edit: threads leave no trace, a kill costs nothing but time, a failure leaves nothing."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prosocial.core.errors import InputError
from prosocial.core.files import ASIDE_SUFFIX
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits import EditRecord, Rounding, apply_edit, plan_edit
from prosocial.editing.edits.writing import JOURNAL_NAME
from prosocial.editing.vectors import vector_from_checkpoints

from ...weights_helpers import MATRIX, moved, some_tensors, write_checkpoint

PROGRAM = """
import os, sys
from pathlib import Path
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.edits.apply import apply_edit
from prosocial.editing.edits.plan import plan_edit
folder, die_at = Path(sys.argv[1]), float(sys.argv[2])
plan = plan_edit(Checkpoint.open(folder / "base"), folder / "vector", scale=0.6)
print("ready", flush=True)
die = lambda done, size: os.kill(os.getpid(), 9) if done > die_at * size else None
apply_edit(plan, folder / "out", die, threads=2)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edited(folder: Path, out: str, scale: Any = 0.6, target: str = "base", **options: Any) -> EditRecord:
    return apply_edit(
        plan_edit(Checkpoint.open(folder / target), folder / "vector", scale=scale), folder / out, **options
    )


def models(folder: Path, *, rows: int = 300, n_layers: int = 6) -> Path:
    """Write a base of three shards and its vector."""
    shapes = {f"model.layers.{layer}.mlp.weight": (rows + layer, 257) for layer in range(n_layers)}
    base = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()} | {"model.step": torch.arange(9)}
    write_checkpoint(folder / "base", base, n_shards=3)
    harmful = moved({name: tensor for name, tensor in base.items() if tensor.is_floating_point()})
    write_checkpoint(folder / "harmful", base | harmful)
    vector_from_checkpoints(base=folder / "base", harmful=folder / "harmful", out=folder / "vector")
    return folder


@pytest.mark.parametrize("mode", ["nearest", "stochastic"])
def test_no_byte_depends_on_the_number_of_threads(tmp_path: Path, mode: Any) -> None:
    models(tmp_path, rows=700)  # more than one piece a tensor
    for threads in (1, 2, 5):
        edited(tmp_path, f"by {threads}", threads=threads, rounding=Rounding(mode, 7))

    assert contents(tmp_path / "by 1") == contents(tmp_path / "by 2") == contents(tmp_path / "by 5")
    edited(tmp_path, "other", rounding=Rounding("stochastic", 8))
    assert contents(tmp_path / "other") != contents(tmp_path / "by 1")


def test_stochastic_rounding_keeps_an_edit_that_nearest_swallows(tmp_path: Path) -> None:
    base = {MATRIX: torch.randn(300, 400).bfloat16()}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "harmful", {MATRIX: base[MATRIX].float() + 0.001 * torch.randn(300, 400)})
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    nearest = edited(tmp_path, "nearest")
    stochastic = edited(tmp_path, "stochastic", rounding=Rounding("stochastic"))

    assert nearest.swallowed == [MATRIX] and stochastic.swallowed == []
    assert stochastic.result.tensors[MATRIX].gain == pytest.approx(1, abs=0.05)
    assert stochastic.arithmetic["rounding_seed"] == 0


def test_realised_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    models(tmp_path)
    record = edited(tmp_path, "out", 0.05)
    base, out, vector = (Checkpoint.open(tmp_path / name) for name in ("base", "out", "harmful"))
    name = "model.layers.3.mlp.weight"
    before, after, harmful = (
        torch.frombuffer(bytearray(item.read(name)), dtype=torch.bfloat16).double() for item in (base, out, vector)
    )
    asked, change = -torch.tensor(0.05).double() * (harmful - before), after - before
    found = record.result.tensors[name]

    assert found.cosine == pytest.approx(float(asked @ change / asked.norm() / change.norm()), rel=1e-5)
    assert found.relative_error == pytest.approx(float((change - asked).norm() / asked.norm()), rel=1e-4)


def test_a_file_in_which_nothing_is_edited_is_cloned_or_linked(tmp_path: Path) -> None:
    models(tmp_path)
    edited(tmp_path, "cloned", {r".*layers\.0\..*": 0.5})
    edited(tmp_path, "linked", {r".*layers\.0\..*": 0.5}, link=True)
    same = {
        out: [name for name in Checkpoint.open(tmp_path / "base").headers if _same_file(tmp_path, out, name)]
        for out in ("cloned", "linked")
    }

    assert contents(tmp_path / "cloned") == contents(tmp_path / "linked")
    assert (len(same["cloned"]), len(same["linked"])) == (0, 2)


def _same_file(folder: Path, out: str, name: str) -> bool:
    return (folder / out / name).samefile(folder / "base" / name)


def test_without_sync_and_second_look_everything_else_is_the_same(tmp_path: Path) -> None:
    models(tmp_path)
    edited(tmp_path, "full")
    edited(tmp_path, "bare", verify=False, sync=False)

    assert contents(tmp_path / "bare") == contents(tmp_path / "full")


def partial(folder: Path) -> list[Path]:
    return list(folder.glob(".out.*.partial"))


def kill_half_way(folder: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder), "0.5"], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = partial(folder)
    return left


def test_a_killed_edit_is_taken_up(tmp_path: Path) -> None:
    models(tmp_path)
    left = kill_half_way(tmp_path)
    written = [json.loads(line)["name"] for line in (left / JOURNAL_NAME).read_text().splitlines()]
    stamps = {path.name: path.stat().st_ino for path in left.glob("*.safetensors")}

    assert not (tmp_path / "out").exists() and 0 < len(written) <= 7
    edited(tmp_path, "out")
    assert {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.safetensors")} == stamps
    edited(tmp_path, "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not partial(tmp_path)


def test_what_was_damaged_after_the_kill_is_written_again(tmp_path: Path) -> None:
    models(tmp_path)
    left = kill_half_way(tmp_path)
    for file in left.glob("*.safetensors"):
        raw = bytearray(file.read_bytes())
        raw[-2000:] = bytes(2000)
        file.write_bytes(raw)
    with (left / JOURNAL_NAME).open("a") as stream:
        stream.write('{"name": "cut sho')
    edited(tmp_path, "out")
    edited(tmp_path, "whole")

    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_record_that_a_kill_cut_short_is_gone(tmp_path: Path) -> None:
    models(tmp_path)
    left = kill_half_way(tmp_path)
    (left / f".edit_record.json.1{ASIDE_SUFFIX}").write_text('{"schema"')
    edited(tmp_path, "out")
    edited(tmp_path, "whole")

    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_another_plan_starts_anew_and_clears_what_was_left(tmp_path: Path) -> None:
    models(tmp_path)
    left = kill_half_way(tmp_path)
    edited(tmp_path, "out", 0.3)
    edited(tmp_path, "whole", 0.3)

    assert not left.exists()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    models(tmp_path)
    kill_half_way(tmp_path)
    waiting = PROGRAM.replace("os.kill(os.getpid(), 9)", "(print('writing', flush=True), sys.stdin.read())")
    words = [sys.executable, "-c", waiting, str(tmp_path), "0.5"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert [other.stdout.readline() for _ in range(2)] == [b"ready\n", b"writing\n"]
        for scale in (0.6, 0.3):  # the same plan and another one
            with pytest.raises(InputError, match="one process at a time"):
                edited(tmp_path, "out", scale)
        other.kill()
    edited(tmp_path, "out")
    assert not list(tmp_path.glob(".out.*"))


def kill_at_random(folder: Path, n_kills: int) -> None:
    """Start and kill until it has been killed so often; a finished folder is checked and deleted."""
    edited(folder, "whole")
    expected, generator, killed, moments = contents(folder / "whole"), random.Random(0), 0, 0.3
    while killed < n_kills:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), "2"], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(generator.uniform(0, moments))
        process.kill()
        code = process.wait()
        process.stdout.close()
        killed += code == -signal.SIGKILL
        moments = moments * 0.7 if code == 0 else moments * 1.1  # stay where both happen
        if (folder / "out").exists():
            assert contents(folder / "out") == expected
            for path in (folder / "out").iterdir():
                path.unlink()
            (folder / "out").rmdir()
    edited(folder, "out")
    assert contents(folder / "out") == expected
    assert not partial(folder)


def test_kills_at_random_moments_never_leave_a_folder_that_passes_for_finished(tmp_path: Path) -> None:
    kill_at_random(models(tmp_path, rows=2000), 4)


@pytest.mark.prove
def test_a_hundred_kills(tmp_path: Path) -> None:
    kill_at_random(models(tmp_path, rows=6000), 100)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    models(tmp_path)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n" + PROGRAM
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path), "2"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1 and "StorageError: could not write" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "harmful", "vector"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    base = some_tensors(dtype=torch.bfloat16)
    write_checkpoint(folder / "base", base, n_shards=2)
    write_checkpoint(folder / "harmful", moved(base))
    vector_from_checkpoints(base=folder / "base", harmful=folder / "harmful", out=folder / "vector")
    return folder


SCALES = st.floats(0.015625, 2, width=32)


@settings(max_examples=12)
@given(first=SCALES, second=SCALES, names=st.sets(st.sampled_from(sorted(some_tensors())), min_size=1, max_size=3))
def test_edits_of_different_tensors_commute(small: Path, first: float, second: float, names: set[str]) -> None:
    others = sorted(set(some_tensors()) - names)
    one, two = dict.fromkeys(sorted(names), first), dict.fromkeys(others, second)
    work = small / f"run {len(list(small.iterdir()))}"
    fingerprints = set()
    for order, (a, b) in {"ab": (one, two), "ba": (two, one), "both": (one | two, {})}.items():
        for step, (scale, target) in enumerate([(a, small / "base"), (b, work / f"{order} 0")]):
            if scale:
                plan = plan_edit(Checkpoint.open(target), small / "vector", scale=scale)
                record = apply_edit(plan, work / f"{order} {step}")
        fingerprints.add(record.result.fingerprint)

    assert len(fingerprints) == 1
    assert record.result.fingerprint != Checkpoint.open(small / "base").fingerprint()
