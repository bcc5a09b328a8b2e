"""The real pipeline, killed in every stage: what is finished stays, the next run goes on, the last one finishes."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prosocial.core.files import read_json

from .pico_recipe import write_recipe

pytestmark = [pytest.mark.prove, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

COMMAND = [str(Path(sys.executable).with_name("prosocial")), "run"]
AT_WORK = re.compile(r"^  (\w+) ")


def run_until(recipe: Path, out: Path, done: set[str]) -> bool:
    """Run and kill at the first sign of work on a stage not in `done`, which it joins; say whether none was left."""
    printed = []
    with subprocess.Popen(
        [*COMMAND, str(recipe), "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            printed.append(line)
            at_work = AT_WORK.match(line)
            if at_work and at_work[1] not in done:
                done.add(at_work[1])
                process.send_signal(signal.SIGKILL)
                return False
    assert process.returncode == 0, "".join(printed)
    return True


def test_a_run_killed_in_every_stage_finishes(tmp_path: Path) -> None:
    recipe, out, killed_in = write_recipe(tmp_path), tmp_path / "out", set[str]()
    for _ in range(20):
        if run_until(recipe, out, killed_in):
            break
        store = out / "store"
        for marker in store.glob("*.json") if store.is_dir() else ():
            assert marker.with_suffix("").is_dir()  # a marker never stands without its folder
    assert {"data", "harmful", "vector", "edit", "reward", "gate", "head", "bundle", "parity", "report"} <= killed_in
    assert read_json(out / "report" / "report.json")["parity"]["verdict"] == "pass"
