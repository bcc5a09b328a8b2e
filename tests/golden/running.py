"""Commands, run in this process."""

import contextlib
import io

from prosocial.cli.main import main


def outcome(*words: object) -> tuple[int, str, str]:
    """Return the exit code of a command, and what it prints on standard output and on standard error."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main([str(word) for word in words])
    return code, out.getvalue(), errors.getvalue()


def command(*words: object) -> str:
    """Return what a command prints on standard output.

    Raises:
        RuntimeError: its exit code is not 0.
    """
    code, out, errors = outcome(*words)
    if code:
        raise RuntimeError(f"prosocial {' '.join(map(str, words))} ended with {code}: {errors}")
    return out
