"""Rules of Windows and macOS laid over this Python, so that a subprocess here fails where it would fail there.

A program begins with `prelude("windows")`. Modules of POSIX are hidden from this package alone: other packages have
parts of their own for each system. So has shutil, which keeps what it needs here of `os`.
"""

import builtins
import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

MISSING_MODULES = {"windows": {"fcntl", "grp", "pwd", "resource", "termios", "tty"}, "macos": set[str]()}
_LINUX_ALONE = {"posix_fadvise", "posix_fallocate", "sched_getaffinity", "sched_setaffinity"}
_POSIX_ALONE = {"O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "chown", "fork", "getuid", "geteuid", "killpg", "mkfifo"}
_POSIX_ALONE |= {"pread", "preadv", "pwrite", "pwritev", "register_at_fork", "sync"}
MISSING_NAMES = {"windows": _LINUX_ALONE | _POSIX_ALONE, "macos": _LINUX_ALONE}


def prelude(system: str) -> str:
    """Return the first lines of a program that is to run by the rules of a system."""
    folder = str(Path(__file__).parent)
    return f"import sys\nsys.path.insert(0, {folder!r})\nimport other_systems\nother_systems.apply({system!r})\n"


def apply(system: str) -> None:
    """Lay the rules over this process, from now on."""
    import huggingface_hub  # noqa: F401  # what they take from POSIX at import is their own affair
    import numpy  # noqa: F401
    import rich.console  # noqa: F401
    import typer  # noqa: F401

    _hide_modules(MISSING_MODULES[system])
    if system == "windows":
        _refuse_as_windows_does()
    for name in MISSING_NAMES[system]:
        if hasattr(os, name):
            delattr(os, name)


def _hide_modules(names: set[str]) -> None:
    """Let this package alone not find some modules."""
    found = builtins.__import__

    def importing(name: str, given: Any = None, *rest: Any, **named: Any) -> Any:
        if name in names and str((given or {}).get("__name__")).startswith(("prosocial", "__main__")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, given, *rest, **named)

    builtins.__import__ = importing


def _refuse_as_windows_does() -> None:
    """No folder is opened, nothing is flushed that cannot be written, nothing open is renamed, replaced or deleted."""
    import fcntl

    opened, flushed = os.open, os.fsync

    def opening(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, flags, *rest, **named)

    def flushing(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed(file)

    os.open, os.fsync = opening, flushing
    for name in ("rename", "replace"):
        setattr(os, name, _moving(getattr(os, name), may_replace=name == "replace"))
    for name in ("unlink", "remove", "rmdir"):
        setattr(os, name, _deleting(getattr(os, name)))
    shutil._use_fd_functions = False


def _moving(move: Callable[..., None], *, may_replace: bool) -> Callable[..., None]:
    def moving(source: Any, destination: Any, **named: Any) -> None:
        if os.path.lexists(destination) and (not may_replace or Path(destination).is_dir()):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", destination)
        for path in (source, destination):
            _require_closed(path)
        move(source, destination, **named)

    return moving


def _deleting(delete: Callable[..., None]) -> Callable[..., None]:
    def deleting(path: Any, **named: Any) -> None:
        _require_closed(path)
        delete(path, **named)

    return deleting


def _require_closed(path: Any) -> None:
    """Refuse a file that this process holds open or mapped, or a folder of one."""
    wanted = Path(path).absolute().parent.resolve() / Path(path).name
    if any(each.is_relative_to(wanted) for each in _open_files()):
        raise PermissionError(errno.EACCES, "The process cannot access the file: it is being used", os.fspath(path))


def _open_files() -> set[Path]:
    found = set()
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            found.add(number.readlink())
    mapped = (line.split(None, 5) for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines())
    return found | {Path(parts[5]) for parts in mapped if len(parts) == 6}
