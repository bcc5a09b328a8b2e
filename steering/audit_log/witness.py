"""Witnesses of an audit log: how it ended at some time, kept where nobody else can write (torch-free).

Log and head cannot show that both were deleted, or replaced by an older pair. A witness can: the log must still contain
the line that the witness saw. It needs no secrecy and no signature, only a place of its own, such as another machine, a
write-once medium or a printed page.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_jsonl, storage_errors
from prosocial.core.locking import locked
from prosocial.core.settings import StrictSettings, first_fault


class Witness(StrictSettings):
    """The end of a log at some time.

    Attributes:
        lines: number of lines.
        last: SHA-256 (hex) of the last line.
        time: when the log was looked at, in UTC.
    """

    schema_: Literal["prosocial.log_witness/1"] = Field(default="prosocial.log_witness/1", alias="schema")
    lines: int = Field(ge=0)
    last: str = Field(pattern="^[0-9a-f]{64}$")
    time: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

    def to_line(self) -> str:
        """Return the witness as one line of JSON."""
        return json.dumps(self.model_dump(by_alias=True))


def append_witness(path: Path, witness: Witness) -> None:
    """Append a witness to a JSONL file; processes take turns.

    Raises:
        StorageError: the file cannot be written.
    """
    with storage_errors(path), locked(path.with_name(f".{path.name}.lock")):
        AppendedRows(path).append(witness.model_dump(by_alias=True))


def read_witnesses(paths: Sequence[Path]) -> list[Witness]:
    """Read witnesses from JSONL files.

    Raises:
        InputError: a file is missing or holds no witness.
        ArtefactError: a line is not a witness.
    """
    return [_witness(path, row) for path in paths for row in read_jsonl(path)]


def _witness(path: Path, row: object) -> Witness:
    try:
        return Witness.model_validate(row)
    except ValidationError as error:
        raise ArtefactError(f"{path} should hold witnesses of a log; {first_fault(error)}") from None
