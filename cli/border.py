"""The border of the program: what an error becomes, one line and an exit code, for every command alike.

What the caller gave, or the operating system refused, is one line and exit code 2. Anything else is a mistake in
prosocial: one line, exit code 70 (EX_SOFTWARE of sysexits.h), and a file to report.
"""

import errno
import json
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import typer
from safetensors import SafetensorError

from prosocial.core.cores import is_out_of_memory
from prosocial.core.errors import ProsocialError
from prosocial.core.redaction import redact
from prosocial.core.terminal import one_line

from .extras import missing_extra

BAD_INPUT = 2
INTERNAL = 70
READER_GONE = 141  # as a shell says it of a program that SIGPIPE ended
OWN_NAMES = ("prosocial", "prosocial.")


def error_line(error: BaseException) -> str | None:
    """Return what to tell the user about an error, on one line, or None for a mistake in prosocial."""
    text = _foreseen(error)
    return None if text is None else one_line(redact(text))


def _foreseen(error: BaseException) -> str | None:
    match error:
        case typer.TyperException():
            return error.format_message()
        case ProsocialError():
            return str(error)
        case ModuleNotFoundError():
            missing = missing_extra(error)
            return None if missing is None else str(missing)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            where = f" at {error.filename}" if error.filename else ""
            return f"the disk is full{where}: free space or choose another folder"
        case OSError():
            return _refused(error)
        case MemoryError() | RuntimeError() if is_out_of_memory(error):
            return "the memory is full: give the command less at once, more memory, or another --device or --dtype"
        case RecursionError():
            return f"{_place(error)} is nested too deeply to be read: save it with fewer levels"
        case ValueError() if "integer string conversion" in str(error):  # Python's limit, CVE-2020-10735
            return f"{_place(error)} holds a number with thousands of digits: save it with numbers that fit"
        case json.JSONDecodeError():
            return f"{_place(error)} should hold JSON: {error}; download or save it again"
        case SafetensorError():
            return f"{_place(error)} should be a safetensors file: {error}; download or save it again"
        case UnicodeError():
            return f"{_place(error)} should be UTF-8 text: {error}"
    return None


def _refused(error: OSError) -> str:
    """Return a line on what the operating system refused, with the path if there is one."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"the operating system refused: {reason}"
    return f"{os.fsdecode(error.filename)} cannot be used: {reason.lower()}; check the path and its permissions"


def _place(error: BaseException) -> str:
    """Return the path of the file that was being read when an error arose: the innermost local path."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").startswith(OWN_NAMES):
            for value in frame.f_locals.values():
                if isinstance(value, Path):
                    return str(value)
    return "an input"


def internal_error_line(error: BaseException) -> str:
    """Write a report on a mistake in prosocial to a new temporary file, and return the line that names it.

    The report has versions and the places in the code, but neither messages nor arguments: they may quote a prompt,
    a key or another text of the user.
    """
    text = "\n".join([*_versions(), *_chain(error), ""])
    descriptor, name = tempfile.mkstemp(prefix="prosocial-error-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    return (
        f"{type(error).__name__} in {_innermost(error)}: a mistake in prosocial, not in your input; "
        f"please report it with {name}, which holds none of your texts (--verbose shows the whole error)"
    )


def _versions() -> Iterator[str]:
    from importlib.metadata import version

    yield f"prosocial {version('prosocial')}, Python {platform.python_version()}, {platform.platform()}"


def _chain(error: BaseException) -> Iterator[str]:
    """Yield the type and the places in the code of an error and of those before it."""
    before = error.__cause__ or error.__context__
    if before is not None:
        yield from _chain(before)
    yield f"{type(error).__module__}.{type(error).__qualname__}"
    for place in traceback.extract_tb(error.__traceback__):
        yield f"  {place.filename}:{place.lineno} in {place.name}"


def _innermost(error: BaseException) -> str:
    places = traceback.extract_tb(error.__traceback__)
    return f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "prosocial"


def forget_stdout() -> None:
    """Let what could not be printed go nowhere, or Python would try again at its end and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
