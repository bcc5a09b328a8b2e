"""The benchmark of what steering costs runs every system on a tiny model and judges its floors."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "steering_cost.py"


@pytest.mark.prove
def test_every_system_answers_and_floors_are_judged(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--work", str(tmp_path), "--tiny", "--new", "4", "--prompt", "5"]
    command += ["--batches", "2", "--runs", "1", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # a tiny model says nothing of the floors
    for name in ("a: plain bundle", "b: steered", "c: PARM", "d: PARM, transformers", "d: PARM, two rows", "d: GenARM"):
        assert name in done.stdout
    assert done.stdout.count("floor") == 2 and "ceiling 1.05" in done.stdout
