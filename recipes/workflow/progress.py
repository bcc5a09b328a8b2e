"""What people see while a recipe runs: bars on a terminal, plain lines elsewhere (torch-free)."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from prosocial.core.progress import Progress

from .resources import say_bytes, say_seconds

LINE_EVERY_SECONDS = 15.0
_THERE = ("•", "=", "cyan")
_MARKS = {"done": ("✓", "+", "green"), "reused": _THERE, "kept": _THERE, "cleaned": _THERE}
_MEANING = {"kept": "kept: its code has changed (accepted)"}
_FAILED = ("✗", "x", "red")
_NAME_WIDTH, _TIME_WIDTH = 14, 12


class BarProgress(Progress):
    """Progress as one bar with the time that has passed and the time that remains; it leaves nothing behind."""

    def __init__(self, bars: Bars, *, name: str, title: str) -> None:
        self._bars = bars
        self._name = name
        self._task = bars.add_task(f"{name}: {title}", total=None)

    def start(self, total: int | None, description: str) -> None:
        """Begin a part of the stage."""
        self._bars.reset(self._task, total=total, description=f"{self._name}: {description}")

    def advance(self, n: int = 1) -> None:
        """Say that `n` more steps are done."""
        self._bars.advance(self._task, n)


class LineProgress(Progress):
    """Progress as plain lines for logs: one when a part starts, then at most one every `every_seconds`."""

    def __init__(self, console: Console, *, name: str, every_seconds: float = LINE_EVERY_SECONDS) -> None:
        self._console = console
        self._name = name
        self._every_seconds = every_seconds
        self._description, self._done, self._last = "", 0, 0.0
        self._total: int | None = None

    def start(self, total: int | None, description: str) -> None:
        """Begin a part of the stage."""
        self._description, self._total, self._done = description, total, 0
        self._say(description)

    def advance(self, n: int = 1) -> None:
        """Say that `n` more steps are done."""
        self._done += n
        if time.monotonic() - self._last >= self._every_seconds:
            self._say(f"{self._description} {self._done}" + (f" of {self._total}" if self._total is not None else ""))

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        print_line(self._console, f"  {self._name:<{_NAME_WIDTH}} {text}", style="dim")


@contextlib.contextmanager
def stage_progress(console: Console, *, name: str, title: str) -> Iterator[Progress]:
    """Show one stage at work: a bar on a terminal, lines elsewhere."""
    if not console.is_terminal:
        print_line(console, f"  {name:<{_NAME_WIDTH}} {title}", style="dim")
        yield LineProgress(console, name=name)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield BarProgress(bars, name=name, title=title)


def print_stage(console: Console, *, name: str, state: str, seconds: float | None, summary: str) -> None:
    """Print the line of a stage that has ended; `state` is done, reused, kept, cleaned or failed."""
    mark, ascii_mark, colour = _MARKS.get(state, _FAILED)
    time_text = _MEANING.get(state, state) if seconds is None else say_seconds(seconds)
    line = Text(ascii_mark if console.options.ascii_only else mark, style=colour)
    line.append(f" {name:<{_NAME_WIDTH}} {time_text:<{_TIME_WIDTH}} {summary}".rstrip(), style="default")
    console.print(line, soft_wrap=True, highlight=False)


def print_line(console: Console, text: str, *, style: str = "") -> None:
    """Print plain text on one line, whatever brackets it holds."""
    console.print(Text(text, style=style), soft_wrap=True, highlight=False)


def print_plan(console: Console, rows: Sequence[tuple[str, str, str, float | None, int | None]]) -> None:
    """Print a table of what a run would do, from rows of (stage, title, state, seconds to come, bytes)."""
    table = Table("stage", "what it does", "state", "about", "disk", box=None, pad_edge=False, show_footer=True)
    to_come = sum(seconds or 0 for *_, seconds, _ in rows)
    table.columns[3].footer = say_seconds(to_come) if to_come else ""
    table.columns[4].footer = say_bytes(sum(n_bytes or 0 for *_, n_bytes in rows))
    for name, title, state, seconds, n_bytes in rows:
        about = "" if seconds is None else say_seconds(seconds)
        disk = "" if n_bytes is None else say_bytes(n_bytes)
        table.add_row(*(Text(cell) for cell in (name, title, state, about, disk)))
    console.print(table)
