"""Runs a tiny run of the lab on the CPU, then its stages one by one on the device `fake`; prints what each did.

`python -m tests.recipes.on_fake_device FOLDER STAGE...` in a process of its own: the device stays for good.
"""

import json
import subprocess
import sys
import traceback
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

from prosocial.core.progress import SILENT
from prosocial.core.protocols import Judgement
from prosocial.recipes.pipeline import open_recipe
from prosocial.recipes.workflow.plan import RunPlan, plan_run
from prosocial.recipes.workflow.runner import execute
from prosocial.recipes.workflow.stage import StageContext
from prosocial.training.reward.attributes import DEFAULT_ATTRIBUTES

from ..fake_device import OnDevice, install

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "embedding", "_softmax", "_log_softmax", "native_layer_norm")
TINY = (
    *("model.lab.hidden_size=32", "model.lab.layers=1", "model.lab.steps=3", "model.lab.vocabulary_size=300"),
    *("data.lab.conversations=64", "data.lab.harmful=8", "data.lab.prompts=24", "data.lab.gate_prompts=24"),
    *("data.lab.harmful_calibration=12", "data.lab.other_calibration=8", "data.lab.harmful_probes=6"),
    *("data.lab.other_probes=4", "data.lab.attack_probes=2", "harmful.steps=2", "harmful.batch_size=4"),
    *("pairs.count=12", "reward.steps=2", "reward.batch_size=4", "head.rank=4", "head.sequences=8", "head.steps=4"),
    *("replies.count=16", "gate.rank=4", "gate.steps=4", "gate.on_policy.count=8", "calibration.max_leak=1.0"),
    *("calibration.candidates=[0.9]", "decoding.max_new_tokens=6", "decoding.plausible_k=8"),
    "judge=tests.recipes.on_fake_device:Lottery",
    *("pairs.max_new_tokens=6", "replies.max_new_tokens=6", "verify.parity_probes=4"),
)


class Lottery:
    """Judges replies by a digest of their text, so that an untrained model's replies get labels of every kind."""

    name, version = "lottery", "1"

    def judge(self, messages: object, reply: str) -> Judgement:
        """Judge one reply."""
        bits = sha256(reply.encode()).digest()
        harms = frozenset(["violence"] if bits[0] % 2 else [])
        return Judgement(
            categories=harms,
            refusal="full" if bits[1] % 2 else "none",
            success=bool(harms),
            attributes={name: bits[2 + at] / 255 for at, name in enumerate(DEFAULT_ATTRIBUTES)},
        )


class Products(TorchDispatchMode):
    """Counts the operators that multiply, look up or normalise, by the device of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.by_device = {"cpu": 0, "fake": 0}
        self.on_cpu: set[str] = set()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operator and run it."""
        name = op._schema.name.removeprefix("aten::")
        if name in PRODUCTS:
            tensors = [each for each in args if isinstance(each, torch.Tensor)]
            device = "fake" if any(isinstance(each, OnDevice) for each in tensors) else "cpu"
            self.by_device[device] += 1
            if device == "cpu":
                self.on_cpu.add(_caller())
        return op(*args, **(kwargs or {}))


def _caller() -> str:
    """Return the innermost module of the package that is running."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_stack(None))
    return next((name for name in names if name.startswith("prosocial.")), "elsewhere")


def stages_on(device: str, plan: RunPlan, out: Path, names: list[str]) -> dict[str, Any]:
    """Run the stages with a model once more on a device, each with the inputs of the run on the CPU."""
    found: dict[str, Any] = {}
    for planned in plan.stages:
        stage = planned.stage
        if names and stage.name not in names:
            continue
        paths = {name: path for name, (path, _) in planned.inputs.items()}
        folder, scratch = out / stage.name, out / f"{stage.name}-scratch"
        folder.mkdir(parents=True)
        scratch.mkdir()
        with Products() as products:
            try:
                said = stage.run(StageContext(folder, paths, stage.parameters, scratch, SILENT, stage.seed, device))
            except Exception as error:
                said = f"FAILED: {error!r:.300} at {_raised(error)}"
        found[stage.name] = {"said": said, **products.by_device, "on_cpu": sorted(products.on_cpu)}
    return found


def _raised(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/prosocial/" in frame.filename]
    return " < ".join(f"{frame.filename.rpartition('prosocial/')[2]}:{frame.lineno}" for frame in reversed(frames[-4:]))


def run_on_cpu(folder: Path) -> RunPlan:
    """Run all stages that have no result yet on the CPU, and return their plan."""
    recipe, pipeline = open_recipe("quickstart", TINY)
    plan = plan_run(pipeline.stages(recipe), folder / "store")
    execute(plan, Console(quiet=True))
    return plan.refreshed()


def main(folder: Path, names: list[str]) -> None:
    """Print JSON: what each stage said on the device, and how many products it computed where."""
    if names == ["cpu"]:
        run_on_cpu(folder)
        return
    # In a process of its own, because torch counts the devices at the first backward pass.
    subprocess.run([sys.executable, "-m", "tests.recipes.on_fake_device", str(folder), "cpu"], check=True)
    device = install()
    print(json.dumps(stages_on(device, run_on_cpu(folder), folder / device, names)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
