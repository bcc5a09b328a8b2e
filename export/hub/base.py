"""The base of an artefact, named on the Hub."""

import re
from dataclasses import dataclass
from typing import Self

from prosocial.core.errors import InputError

_FORM = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


@dataclass(frozen=True)
class Base:
    """A repository at a commit."""

    name: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `ORG/NAME@COMMIT`.

        Raises:
            InputError: it is of another form; a branch would mean other weights tomorrow.

        Example:
            >>> Base.parse("Qwen/Qwen3-0.6B@" + "c" * 40).name
            'Qwen/Qwen3-0.6B'
        """
        found = _FORM.fullmatch(text)
        if not found:
            raise InputError(f"--base should be ORG/NAME@COMMIT with the 40 hex digits of the commit, found {text!r}")
        return cls(found["name"], found["revision"])
