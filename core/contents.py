"""What a reader says of a file whose content has another form than it should: one line, for every wrong type."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .errors import ArtefactError, ProsocialError

WRONG_FORM = (TypeError, KeyError, IndexError, AttributeError, ValueError, ArithmeticError, RuntimeError)
PANIC = "PanicException"  # of a library in Rust: no Exception, and no module exports it; its errors are plain ones


@contextlib.contextmanager
def read_as(kind: str, path: Path | str) -> Iterator[None]:
    """Turn the errors that content of another form causes into one line; errors of this package pass unchanged.

    Args:
        kind: what the file should hold, such as "the config of a gate".
        path: the file.

    Raises:
        ArtefactError: the content has another form.

    Examples:
        >>> with read_as("a gate", "gate.json"):
        ...     raise ValueError("rank 0")
        Traceback (most recent call last):
        ...
        prosocial.core.errors.ArtefactError: gate.json should hold a gate: rank 0; make or download it again
    """
    try:
        yield
    except ProsocialError:
        raise
    except BaseException as error:
        is_of_rust = type(error) is Exception or type(error).__name__ == PANIC
        if not (isinstance(error, WRONG_FORM) or is_of_rust):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ArtefactError(f"{path} should hold {kind}: {reason:.300}; make or download it again") from error
