"""The loops in C, or None where there was no compiler when the package was installed: numpy then does the same."""

from types import ModuleType

native: ModuleType | None
try:
    from . import native
except ImportError:
    native = None
