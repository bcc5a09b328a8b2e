"""The benchmark of what steering costs runs every system on a tiny model and judges its floors."""

import re
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
    assert done.returncode == int("DOES NOT HOLD" in done.stdout), done.stderr  # a tiny model may be above or below
    for name in ("a: plain bundle", "b: steered", "c: PARM", "d: PARM, transformers", "d: PARM, two rows", "d: GenARM"):
        assert name in done.stdout
    floors = re.findall(r"floor ([\d.]+) of '.*': ([\d.]+), (.*)", done.stdout)
    ceilings = re.findall(r"ceiling ([\d.]+) of '.*': ([\d.]+), (.*)", done.stdout)
    assert [floor for floor, _, _ in floors] == ["0.97", "1.7"] and [most for most, _, _ in ceilings] == ["1.05"]
    bounds = [(float(low), float(value), word) for low, value, word in floors]
    bounds += [(float(value), float(high), word) for high, value, word in ceilings]
    for low, high, word in bounds:
        assert word == ("holds" if low <= high else "DOES NOT HOLD") or abs(low - high) < 1e-3  # shown to three digits
