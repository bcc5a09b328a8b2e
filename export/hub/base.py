"""The base model of an artefact, as a Hub repository at a commit."""

import re
from dataclasses import dataclass
from typing import Self

from prosocial.core.errors import InputError

_FORM = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


@dataclass(frozen=True)
class Base:
    """A Hub repository at a commit.

    Attributes:
        name: repository, `ORG/NAME`.
        revision: hash of the commit, 40 hex digits.
    """

    name: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `ORG/NAME@COMMIT`.

        Raises:
            InputError: the text has another form; branches are not accepted because they may move to other weights.

        Examples:
            >>> Base.parse("Qwen/Qwen3-0.6B@" + "c" * 40).name
            'Qwen/Qwen3-0.6B'
        """
        match = _FORM.fullmatch(text)
        if not match:
            raise InputError(f"--base should be ORG/NAME@COMMIT with the 40 hex digits of the commit, found {text!r}")
        return cls(match["name"], match["revision"])
