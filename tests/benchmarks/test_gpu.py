"""The benchmark of a GPU runs every torch stage on a tiny model, on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
STAGES = ("harmful", "pairs", "replies", "reward", "gate", "head", "threshold", "tune sft", "tune dpo")


@pytest.mark.prove
def test_every_stage_has_its_time_and_memory(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert document["facts"]["device"] == "cpu" and document["facts"]["onnxruntime-gpu"] == "absent"
    for stage in (*STAGES, "decode, steered, float32"):
        row = document["stages"][stage]
        assert row["done"] and row["seconds"] > 0 and row["peak_bytes"] > 0 and stage in done.stdout
