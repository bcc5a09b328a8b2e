"""The program `prosocial`: runs one command inside the border that makes every error one line and an exit code.

Exit codes: 0 pass, 1 a verdict of fail, 2 bad input or a full disk, 3 ambiguous or cannot say, 70 a mistake in
prosocial, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

INTERRUPTED = 130
try:
    import traceback
    import warnings

    import typer

    from prosocial.core.terminal import printable, printable_json

    from . import border
    from .border import error_line as error_line
    from .commands import COMMANDS as COMMANDS
    from .commands import app as app
    from .output import AMOUNT
except KeyboardInterrupt:  # while the program loads
    print("interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)

# Read by libraries when they are imported: their bars and advice are for developers of models, not for our users.
QUIET_LIBRARIES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes one line on standard error.

    Args:
        arguments: words after `prosocial`; None takes those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    AMOUNT.quiet, AMOUNT.verbose = False, "--verbose" in words
    if not AMOUNT.verbose:
        _quieten_libraries(whole_process=arguments is None)
    try:
        code = app(args=words, prog_name="prosocial", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as stop:
        if not isinstance(stop.__context__, OSError):  # the end of shell completion
            return int(stop.code or 0)
        return _reader_gone()  # typer saw the broken pipe
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # the border: none of them leaves as a traceback
        return _report(error, as_json="--json" in words)
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _reader_gone() -> int:
    border.forget_stdout()
    return border.READER_GONE


def _quieten_libraries(*, whole_process: bool) -> None:
    for name, value in QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)
    if "transformers" in sys.modules:  # a caller from Python imported it before, and it read none of them
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if whole_process and not sys.warnoptions:
        warnings.simplefilter("ignore")


def _report(error: Exception, *, as_json: bool) -> int:
    """Print one line on an error and return the exit code."""
    line, code = error_line(error), border.BAD_INPUT
    if line is None:
        if AMOUNT.verbose:
            print(printable("".join(traceback.format_exception(error))), file=sys.stderr, end="")
        line, code = border.internal_error_line(error), border.INTERNAL
    print(f"error: {line}", file=sys.stderr)
    try:
        if as_json:
            print(printable_json({"error": line}))
        sys.stdout.flush()
    except OSError:
        border.forget_stdout()
    return code


if __name__ == "__main__":
    sys.exit(main())
