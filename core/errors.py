"""The one error tree of prosocial.

ProsocialError                      anything this package raises on purpose
├── InputError (ValueError)         what the caller gave is wrong: exit code 2, one line, nothing written
│   ├── UnknownNameError            a name that is not in a registry; lists the known names
│   ├── ArtefactError               a folder or file is not the artefact it should be
│   └── FingerprintError            two artefacts do not belong together
├── NoVerdictError                  a judge could not judge a reply or a request
├── DivergenceError                 training reached NaN or infinite values; says what is kept
├── StorageError (OSError)          the operating system refused a write: disk full, no permission
├── HubError                        the Hub refused a request, or the connection to it dropped
└── MissingExtraError (ImportError) an optional dependency is not installed; names the extra

Every message says what should hold, what the actual value is (name, shape, path) and what to do.
"""

import difflib
from collections.abc import Iterable

from .terminal import one_line

LONGEST_MESSAGE = 1500  # characters


class ProsocialError(Exception):
    """Base of every error that this package raises on purpose; its text is one line, whatever it quotes."""

    def __str__(self) -> str:
        """Return the message on one line; the middle of a very long one is left out."""
        line = one_line(super().__str__())
        if len(line) <= LONGEST_MESSAGE:
            return line
        return f"{line[: LONGEST_MESSAGE - 500]} \u2026 {line[-500:]}"


class InputError(ProsocialError, ValueError):
    """A value that the caller gave is invalid; nothing was written."""


class UnknownNameError(InputError):
    """A name that is not in a registry; the message lists the known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        super().__init__(f"unknown {kind} {name!r}{hint}: known are {', '.join(names)}")


class ArtefactError(InputError):
    """A folder or file is not the artefact it should be."""


class FingerprintError(InputError):
    """Two artefacts do not belong together."""

    def __init__(self, left: str, left_fingerprint: str, right: str, right_fingerprint: str) -> None:
        super().__init__(
            f"{left} belongs to checkpoint {left_fingerprint[:16]}, but {right} has fingerprint "
            f"{right_fingerprint[:16]}: make {left} again for this checkpoint"
        )


class NoVerdictError(ProsocialError):
    """A judge could not judge a reply or a request."""


class DivergenceError(ProsocialError):
    """Training reached NaN or infinite values."""


class StorageError(ProsocialError, OSError):
    """The operating system refused a write (disk full, no permission)."""


class HubError(ProsocialError):
    """The Hub refused a request, or the connection to it dropped."""


class MissingExtraError(ProsocialError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is needed here and is not installed: pip install 'prosocial[{extra}]'")
