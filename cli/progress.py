"""A progress bar that counts bytes."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from .output import AMOUNT, progress_console


@contextlib.contextmanager
def byte_progress(title: str, *, visible: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback that takes (bytes done, total bytes); None unless standard error is a terminal."""
    if not visible or AMOUNT.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(title, *columns, console=progress_console(), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)
