"""What a command is given, looked at before it starts: no path to wait for, no link that leads nowhere, no NaN."""

import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError

TEXTS = ("prompt", "set_", "setting", "rubric")  # arguments that are never a path


def check_given(given: Mapping[str, Any]) -> None:
    """Check the numbers among a command's arguments, its paths, and what is directly in the folders among them.

    Pipes, sockets and devices are refused: reading them may wait forever.

    Raises:
        InputError: a number is NaN, something is neither a file nor a folder, or a link leads nowhere.
    """
    for name, value in given.items():
        if isinstance(value, float) and math.isnan(value):
            raise InputError(f"--{name.replace('_', '-')} should be a number, found nan")
        if name not in TEXTS:
            for path in _paths(value):
                if path.is_symlink() and not path.exists():
                    raise InputError(f"{path} is a link that leads nowhere: correct or delete it")
                for each in (path, *(path.iterdir() if path.is_dir() else ())):
                    _require_file_or_folder(each)


def _paths(value: Any) -> Iterator[Path]:
    """Yield the paths in an argument; a text counts as a path where something has this name."""
    if isinstance(value, Path) or (isinstance(value, str) and os.path.lexists(value)):
        yield Path(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _paths(each)


def _require_file_or_folder(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        kind = "a pipe" if stat.S_ISFIFO(path.stat().st_mode) else "a device or socket"
        raise InputError(f"{path} should be a file or a folder, it is {kind}: save its content in a file")
