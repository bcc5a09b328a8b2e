"""Progress output of a run: bars on a terminal, plain lines elsewhere (torch-free)."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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

LINE_EVERY_SECONDS = 30.0
AT_ONCE_SECONDS = 1.0  # steps reported this soon were done by an earlier run, and say nothing about the speed
_NOT_RUN = ("•", "=", "cyan")
_MARKS = {"done": ("✓", "+", "green"), "reused": _NOT_RUN, "kept": _NOT_RUN, "cleaned": _NOT_RUN}
_MEANING = {"kept": "kept: its code has changed (accepted)"}
_FAILED = ("✗", "x", "red")
_NAME_WIDTH, _TIME_WIDTH = 14, 12


class Pace:
    """The speed of one part of a stage.

    Args:
        total: number of its steps; None if not known.
    """

    def __init__(self, total: int | None) -> None:
        self.total, self.done = total, 0
        self._started = time.monotonic()
        self._earlier = self._tokens = 0

    def advance(self, n: int, tokens: int) -> None:
        """Count finished steps and their tokens."""
        if not self.done and not tokens and time.monotonic() - self._started < AT_ONCE_SECONDS:
            self._earlier = n
        self.done += n
        self._tokens += tokens

    def rate(self) -> str:
        """Return tokens a second as text, or steps a second; empty while nothing is known."""
        seconds, n_steps = time.monotonic() - self._started, self.done - self._earlier
        if not n_steps or not seconds:
            return ""
        if self._tokens:
            return f"{self._tokens / seconds:,.0f} tokens/s"
        return f"{seconds / n_steps:.1f} s a step" if n_steps < seconds else f"{n_steps / seconds:,.0f} steps/s"

    def left(self) -> str:
        """Return the time that is left as text; empty while it is not known."""
        n_steps = self.done - self._earlier
        if self.total is None or not n_steps:
            return ""
        seconds = (time.monotonic() - self._started) / n_steps * max(0, self.total - self.done)
        return f"about {say_seconds(seconds)} left"


class BarProgress(Progress):
    """Progress as one bar with elapsed and remaining time; it is erased at the end."""

    def __init__(self, bars: Bars, *, name: str, title: str) -> None:
        self._bars = bars
        self._name = name
        self._task = bars.add_task(f"{name}: {title}", total=None, rate="")
        self._pace = Pace(None)

    def start(self, total: int | None, description: str) -> None:
        """Begin a part of the stage."""
        self._pace = Pace(total)
        self._bars.reset(self._task, total=total, description=f"{self._name}: {description}", rate="")

    def advance(self, n: int = 1, *, tokens: int = 0) -> None:
        """Report `n` more finished steps and their tokens."""
        self._pace.advance(n, tokens)
        self._bars.update(self._task, advance=n, rate=self._pace.rate())


class LineProgress(Progress):
    """Progress as plain lines for logs: one at the start of each part, then at most one per `every_seconds`."""

    def __init__(
        self, console: Console, *, name: str, title: str = "", every_seconds: float = LINE_EVERY_SECONDS
    ) -> None:
        self._title = title  # printed once there is progress, so that a refused input prints only its error
        self._console = console
        self._name = name
        self._every_seconds = every_seconds
        self._description, self._last = "", 0.0
        self._pace = Pace(None)

    def start(self, total: int | None, description: str) -> None:
        """Begin a part of the stage."""
        if self._title not in ("", description):
            self._say(self._title)
        self._title, self._description, self._pace = "", description, Pace(total)
        self._say(description)

    def advance(self, n: int = 1, *, tokens: int = 0) -> None:
        """Report `n` more finished steps and their tokens."""
        pace = self._pace
        pace.advance(n, tokens)
        if time.monotonic() - self._last >= self._every_seconds:
            count = f"{self._description} {pace.done}" + ("" if pace.total is None else f" of {pace.total}")
            self._say(", ".join(filter(None, (count, pace.rate(), pace.left()))))

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        print_line(self._console, f"  {self._name:<{_NAME_WIDTH}} {text}", style="dim")


@contextlib.contextmanager
def stage_progress(console: Console, *, name: str, title: str, at_once: bool = False) -> Iterator[Progress]:
    """Yield a progress display for one stage: a bar on a terminal, lines elsewhere; `at_once` prints a first line."""
    if not console.is_terminal:
        if at_once:
            print_line(console, f"  {name:<{_NAME_WIDTH}} {title}", style="dim")
            title = ""
        yield LineProgress(console, name=name, title=title)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield BarProgress(bars, name=name, title=title)


def print_stage(console: Console, *, name: str, state: str, seconds: float | None, summary: str) -> None:
    """Print the line of a finished stage; `state` is done, reused, kept, cleaned or failed."""
    mark, ascii_mark, colour = _MARKS.get(state, _FAILED)
    time_text = _MEANING.get(state, state) if seconds is None else say_seconds(seconds)
    line = Text(ascii_mark if console.options.ascii_only else mark, style=colour)
    line.append(f" {name:<{_NAME_WIDTH}} {time_text:<{_TIME_WIDTH}} {summary}".rstrip(), style="default")
    console.print(line, soft_wrap=True, highlight=False)


def print_line(console: Console, text: str, *, style: str = "") -> None:
    """Print text on one line without interpreting rich's markup."""
    console.print(Text(text, style=style), soft_wrap=True, highlight=False)


class PlanRow(NamedTuple):
    """A line of a plan: a stage, its estimated seconds, its disk space and its estimated memory; None: not known."""

    name: str
    title: str
    state: str
    seconds: float | None
    n_bytes: int | None
    memory_bytes: int | None


def print_plan(console: Console, rows: Sequence[PlanRow]) -> None:
    """Print a plan as a table, with the sums of time and disk space and the largest memory."""
    table = Table(
        *("stage", "what it does", "state", "about", "memory", "disk"), box=None, pad_edge=False, show_footer=True
    )
    total_seconds, most = sum(row.seconds or 0 for row in rows), max((row.memory_bytes or 0 for row in rows), default=0)
    table.columns[3].footer = say_seconds(total_seconds) if total_seconds else ""
    table.columns[4].footer = say_bytes(most) if most else ""
    table.columns[5].footer = say_bytes(sum(row.n_bytes or 0 for row in rows))
    for row in rows:
        about = "" if row.seconds is None else say_seconds(row.seconds)
        sizes = ("" if n_bytes is None else say_bytes(n_bytes) for n_bytes in (row.memory_bytes, row.n_bytes))
        table.add_row(*(Text(cell) for cell in (row.name, row.title, row.state, about, *sizes)))
    console.print(table)
