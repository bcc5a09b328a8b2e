"""A run that is killed, interrupted or doubled leaves nothing that could be taken for a result."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from rich.console import Console
from prosocial.core.errors import InputError
from prosocial.recipes.workflow.runner import execute, plan_run
from prosocial.recipes.workflow.stage import Stage, Upstream

store, wait = Path(sys.argv[1]), float(sys.argv[2])

def first(context):
    (context.out / "first").write_text("1")
    return "first"

def second(context):
    steps = context.scratch / "steps"
    done = len(steps.read_text()) if steps.exists() else 0
    for step in context.progress.track(range(done, 3), "steps"):
        with steps.open("a") as stream:
            stream.write("x")
        (context.out / "half").write_text("half")
        # Short sleeps: a signal that comes just before a sleep begins is seen only after it.
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            time.sleep(0.05)
    (context.out / "steps").write_text(f"resumed after {done}")
    return "second"

stages = [
    Stage(name="first", title="first", run=first),
    Stage(name="second", title="second", run=second, inputs={"first": Upstream("first")}),
]
try:
    result = execute(plan_run(stages, store), Console())
except InputError as error:
    sys.exit(f"refused: {error}")
except KeyboardInterrupt:
    sys.exit(130)
print((result.folder("second") / "steps").read_text())
"""


Start = Callable[[float], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the program with a number of seconds to wait in each step; whatever is left of it at the end is killed."""
    with contextlib.ExitStack() as stack:

        def start(wait: float) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(wait)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def wait_for_scratch(store: Path) -> None:
    deadline = time.monotonic() + 30
    while not any(steps.stat().st_size for steps in store.glob(".second-*.scratch/steps")):  # opened is not yet written
        assert time.monotonic() < deadline, "the second stage never started"
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, start: Start, how: signal.Signals) -> None:
    process = start(60)
    wait_for_scratch(tmp_path)
    os.kill(process.pid, how)
    output, errors = process.communicate(timeout=30)

    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    if how == signal.SIGINT:
        assert "interrupted" in output
    assert not [path for path in tmp_path.glob("second-*")], "half a result has no final name"

    again = start(0)
    output, errors = again.communicate(timeout=30)
    assert again.returncode == 0, errors
    assert "resumed after 1" in output
    assert "reused" in output
    assert not list(tmp_path.glob(".*.partial"))
    assert not list(tmp_path.glob(".*.scratch"))


def test_two_runs_on_one_store_do_not_collide(tmp_path: Path, start: Start) -> None:
    process = start(60)
    wait_for_scratch(tmp_path)
    second = start(0)
    _, errors = second.communicate(timeout=30)
    process.kill()
    process.communicate()

    assert second.returncode == 1
    assert "refused: only one run at a time should use" in errors
    assert len(errors.splitlines()) == 1
