"""Counts what a process does to the files of a folder, and kills the process at a given one."""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHANGES = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class WriteWatch:
    """An audit hook that sees each file opened for writing, renamed, deleted or linked below a folder.

    Args:
        folder: the folder, which is the working folder.
        dies_at: number of the change before which the process is killed, from 1; None counts only. A file that is to
            be opened for writing is emptied first, as it is when a process dies between opening and writing.
    """

    def __init__(self, folder: str, dies_at: int | None) -> None:
        self._folder, self._dies_at, self._n_changes, self._is_on = Path(folder).resolve(), dies_at, 0, True
        sys.addaudithook(self._see)

    def stop(self) -> int:
        """Stop counting and return the number of changes."""
        self._is_on = False
        return self._n_changes

    def _see(self, event: str, given: tuple[Any, ...]) -> None:
        if not self._is_on or not (event in CHANGES or (event == "open" and given[2] & WRITES)):
            return
        if not self._is_inside(given):
            return
        self._n_changes += 1
        if self._n_changes == self._dies_at:
            self._is_on = False
            if event == "open" and given[2] & os.O_TRUNC:
                os.close(os.open(given[0], given[2], 0o600))
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_inside(self, given: tuple[Any, ...]) -> bool:
        path = given[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path would call more that is audited
        return place.startswith(f"{self._folder}{os.sep}")


def killed_at_each_write(work: Callable[[], object], folder: Path) -> Iterator[None]:
    """Run `work` in processes of which the first dies before its first write, the next before its second, and so on.

    Yields after each process; the last one ends by itself. POSIX only.
    """
    for dies_at in itertools.count(1):
        process = os.fork()
        if not process:
            signal.alarm(60)  # work that waits for what a killed process holds fails
            WriteWatch(str(folder), dies_at)
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, -signal.SIGKILL), "the work failed"
        yield
        if not code:
            return
