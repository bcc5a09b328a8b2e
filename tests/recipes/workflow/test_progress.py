"""People see the same facts on a terminal and in a log."""

import contextlib
import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from prosocial.recipes.workflow.progress import LineProgress, print_stage, stage_progress
from prosocial.recipes.workflow.resources import say_bytes, say_seconds


def _console(*, terminal: bool, encoding: str = "utf-8") -> tuple[Console, io.BytesIO]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    return Console(file=stream, force_terminal=terminal, width=100, color_system=None), raw


@pytest.mark.parametrize("terminal", [True, False])
def test_items_pass_through_and_the_stage_is_named(terminal: bool) -> None:
    console, raw = _console(terminal=terminal)
    with stage_progress(console, name="gate", title="train the gate") as progress:
        items: Iterator[int] = progress.track((n * n for n in range(4)), "steps [1, 2]", total=4)
        assert list(items) == [0, 1, 4, 9]
        progress.start(10, "calibrating")
        progress.advance(10)

    text = raw.getvalue().decode()
    assert "gate" in text
    if terminal:
        assert "10/10" in text
    else:
        assert "steps [1, 2]" in text
        assert "calibrating" in text
        assert "\x1b" not in text


def test_a_log_gets_few_lines_and_says_how_far() -> None:
    rare, rare_raw = _console(terminal=False)
    often, often_raw = _console(terminal=False)
    list(LineProgress(rare, name="gate").track(range(1000), "steps"))
    list(LineProgress(often, name="gate", every_seconds=0).track([1, 2], "steps"))
    unknown = LineProgress(often, name="gate", every_seconds=0)
    unknown.start(None, "words")
    unknown.advance()

    assert rare_raw.getvalue().decode().count("\n") == 1
    assert "steps 1 of 2" in often_raw.getvalue().decode()
    assert "words 1" in often_raw.getvalue().decode()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_speed_and_the_time_left_are_shown(terminal: bool) -> None:
    console, raw = _console(terminal=terminal)
    lines = contextlib.nullcontext(LineProgress(console, name="pairs", every_seconds=0))
    with stage_progress(console, name="pairs", title="draw") if terminal else lines as progress:
        progress.start(1000, "draw replies")
        progress.advance(400)  # kept from an earlier run
        time.sleep(0.1)
        progress.advance(100, tokens=5000)
        time.sleep(0.2)  # of the bar's refresh

    text = raw.getvalue().decode()
    rates = [int(rate.replace(",", "")) for rate in re.findall(r"([\d,]+) tokens/s", text)]
    assert rates and all(5_000 < rate < 50_000 for rate in rates)
    if not terminal:
        [left] = re.findall(r"500 of 1000, .* tokens/s, about ([\d.]+) s left", text)
        assert 0.4 < float(left) < 2.0  # 500 are left, and 100 took a little more than .1 s


def test_without_tokens_the_speed_is_that_of_steps() -> None:
    console, raw = _console(terminal=False)
    progress = LineProgress(console, name="gate", every_seconds=0)
    progress.start(4, "steps")
    time.sleep(1.1)
    progress.advance()

    assert re.search(r"steps 1 of 4, 1\.\d s a step, about 3\.\d s left", raw.getvalue().decode())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("state", ["done", "reused", "cleaned", "failed"])
def test_a_stage_line_prints_in_any_encoding(encoding: str, state: str) -> None:
    console, raw = _console(terminal=False, encoding=encoding)
    print_stage(console, name="gate", state=state, seconds=None, summary="rank [16]")

    assert raw.getvalue().decode(encoding).endswith("rank [16]\n")
    assert state in raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert say_seconds(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (16_100_000_000, "16.1 GB"), (2 * 10**15, "2000.0 TB")],
)
def test_sizes(n_bytes: int, text: str) -> None:
    assert say_bytes(n_bytes) == text


def test_peak_memory_grows_with_what_is_held() -> None:
    program = """
from prosocial.recipes.workflow.resources import peak_memory_bytes
before = peak_memory_bytes()
held = bytearray(50_000_000)
held[::4096] = b"x" * len(held[::4096])
print(peak_memory_bytes() - before)
"""
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert 20_000_000 < int(grown.stdout) < 80_000_000
