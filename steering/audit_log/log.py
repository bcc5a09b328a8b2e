"""The log of what was done under which config: append-only, chained, with a signed head outside (torch-free).

Every line holds the SHA-256 of the line before it. After each line its number, its SHA-256 and the size of the log are
signed into another file, the head: so a line that was edited, removed or moved is found, and a cut tail too. Who can
write both files and holds an old head can still go back to it; keep copies of the head where nobody else writes.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field, ValidationError

from prosocial.core.errors import ArtefactError
from prosocial.core.files import canonical_json, storage_errors
from prosocial.core.locking import locked
from prosocial.core.settings import StrictSettings
from prosocial.core.signing.envelope import BrokenSignature, seal, statement, unseal
from prosocial.core.signing.keys import SigningKey, TrustedKey

from ..configs.authorised import Clock, utc_now

PREDICATE_TYPE = "urn:prosocial:audit-log-head:v1"
BEGINNING = "0" * 64  # what stands for the line before the first
Verdict = Literal["pass", "fail", "cannot say"]


class Head(StrictSettings):
    """Where a log ended when it was signed.

    Attributes:
        lines: how many there were. last: SHA-256 of the last one. size_bytes: of the log.
    """

    lines: int = Field(default=0, ge=0)
    last: str = BEGINNING
    size_bytes: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class LogReport:
    """What checking a log found.

    Attributes:
        lines: how many stand in it. signed: how many the head vouches for.
        problems: what is wrong, by line; lines after the head are no problem, but nobody vouches for them.
    """

    lines: int
    signed: int
    problems: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Whether all lines are as they were written."""
        if self.problems:
            return "fail"
        return "pass" if self.lines == self.signed else "cannot say"


class AuditLog:
    """A log that one operator appends to, from one or several processes.

    Attributes:
        path: of the log. head: of the signed head; best on another disk or machine. key: the operator's.
        clock: tells the time.
    """

    def __init__(self, path: Path | str, head: Path | str, key: SigningKey, clock: Clock = utc_now) -> None:
        self.path, self.head, self.key, self.clock = Path(path), Path(head), key, clock

    def append(self, event: Mapping[str, Any]) -> None:
        """Add a line and sign the new head.

        Raises:
            ArtefactError: log and head do not belong together; nothing is added.
            StorageError: the disk is full or refuses.
        """
        with storage_errors(self.path), locked(self._lock), self._open() as log:
            head = self._matching_head(log)
            entry = {"line": head.lines + 1, "time": f"{self.clock():%Y-%m-%dT%H:%M:%SZ}", "previous": head.last}
            line = canonical_json({**entry, "event": event}).encode("utf-8")
            log.write(line + b"\n")
            log.flush()
            os.fsync(log.fileno())
            size_bytes = head.size_bytes + len(line) + 1
            _seal_head(self.head, Head(lines=head.lines + 1, last=_digest(line), size_bytes=size_bytes), self.key)

    def require_writable(self) -> None:
        """Check before anything is answered that the log could be written.

        Raises:
            ArtefactError, StorageError: as `append` does.
        """
        with storage_errors(self.path), locked(self._lock), self._open() as log:
            self._matching_head(log)

    @property
    def _lock(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")

    def _open(self) -> BinaryIO:
        """Open the log for appending; a new one is for its owner alone."""
        return open(self.path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))

    def _matching_head(self, log: BinaryIO) -> Head:
        size_bytes = os.fstat(log.fileno()).st_size
        head = _read_head(self.head, [self.key.public]) if self.head.exists() else Head()
        if head.size_bytes != size_bytes:
            raise ArtefactError(
                f"{self.path} should end where {self.head} says, at byte {head.size_bytes}, found {size_bytes} bytes: "
                "see prosocial log check, put both aside and begin a new log"
            )
        return head


def check_log(path: Path | str, head: Path | str, keys: Sequence[TrustedKey]) -> LogReport:
    """Walk a log from its beginning and hold it against a signed head, the newest or a copy of an older one.

    Raises:
        ArtefactError: a file is missing, or the head is signed by none of the keys.
    """
    path, head = Path(path), Path(head)
    if not path.is_file():
        raise ArtefactError(f"expected a log at {path}: there is none")
    signed = _read_head(head, keys)
    problems: list[str] = []
    number, previous, at_head = 0, BEGINNING, BEGINNING
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            problems += _problems(number, raw, previous)
            previous = _digest(raw.removesuffix(b"\n"))
            at_head = previous if number == signed.lines else at_head
    if number < signed.lines:
        problems.append(f"the head vouches for {signed.lines} lines, {signed.lines - number} are missing")
    elif at_head != signed.last:
        problems.append(f"line {signed.lines} is not the one that the head vouches for")
    return LogReport(number, signed.lines, tuple(problems))


def _problems(number: int, raw: bytes, previous: str) -> list[str]:
    """Return what is wrong with one line."""
    if not raw.endswith(b"\n"):
        return [f"line {number} is not whole"]
    try:
        entry = json.loads(raw)
        found = entry["line"], entry["previous"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [f"line {number} is no line of a log"]
    if found[0] != number:
        return [f"line {number} says that it is line {found[0]!r:.20}"]
    return [] if found[1] == previous else [f"line {number} does not follow the line before it, which was changed"]


def _seal_head(path: Path, head: Head, key: SigningKey) -> None:
    subject = [{"name": "log", "digest": {"sha256": head.last}}]
    seal(path, statement(PREDICATE_TYPE, subject, head.model_dump()), key)


def _read_head(path: Path, keys: Sequence[TrustedKey]) -> Head:
    try:
        said, _ = unseal(path, keys)
        if said["predicateType"] != PREDICATE_TYPE:
            raise ArtefactError(f"{path} should be the head of a log, it states something else")
        return Head.model_validate(said["predicate"])
    except BrokenSignature as error:
        raise ArtefactError(f"{path} should be a signed head of the log: {error}") from None
    except (KeyError, ValidationError):
        raise ArtefactError(f"{path} should be the head of a log, what it states has another form") from None


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
