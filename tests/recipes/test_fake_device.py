"""With a second device, every stage that runs a model computes there; in a process of its own, for the device stays."""

import json
import subprocess
import sys

import pytest

from ..roots import ROOT

# The stages that run a model in torch; the bundle is traced on the CPU.
STAGES = ("base", "harmful", "pairs", "reward", "head", "replies", "gate", "threshold", "parity", "report")
# What is too small for a device: the agreement of labels, the Gramian of k losses, the scaling of a trained gate.
SMALL = {
    "reward": ("prosocial.training.reward.encoded_pairs", "prosocial.training.reward.gradients"),
    "gate": ("prosocial.steering.gate",),
}


@pytest.fixture(scope="module")
def on_device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What each stage did on the device."""
    command = [sys.executable, "-m", "tests.recipes.on_fake_device", str(tmp_path_factory.mktemp("fake")), *STAGES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_computes_on_the_device_alone(stage: str, on_device: dict[str, dict[str, object]]) -> None:
    found = on_device[stage]
    assert not str(found["said"]).startswith("FAILED"), found["said"]
    on_cpu = [place for place in found["on_cpu"] if not place.startswith(SMALL.get(stage, ("-",)))]  # type: ignore[attr-defined]
    assert found["fake"] and not on_cpu, found
