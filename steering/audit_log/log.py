"""An append-only, hash-chained audit log with a signed head in a separate file (torch-free).

Every line contains the SHA-256 of the previous line. After each append, the number of lines, the SHA-256 of the last
line and the size of the log are signed into a separate file, the head. `check_log` therefore detects edited, removed
and moved lines and a truncated log. It cannot detect a rollback by somebody who can write both files and kept an old
head: store copies of the head where nobody else can write.
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
BEGINNING = "0" * 64  # digest of the line before the first, which does not exist
Verdict = Literal["pass", "fail", "cannot say"]


class Head(StrictSettings):
    """The end of a log when it was signed.

    Attributes:
        lines: number of lines.
        last: SHA-256 (hex) of the last line.
        size_bytes: size of the log file.
    """

    lines: int = Field(default=0, ge=0)
    last: str = BEGINNING
    size_bytes: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class LogReport:
    """The result of checking a log.

    Attributes:
        lines: number of lines in the log.
        signed: number of lines that the signed head covers.
        problems: one message per problem; lines after the head are no problem, but no signature covers them.
    """

    lines: int
    signed: int
    problems: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """ "pass" if the head covers every line and all are intact, "fail" on a problem, else "cannot say"."""
        if self.problems:
            return "fail"
        return "pass" if self.lines == self.signed else "cannot say"


class AuditLog:
    """An audit log of one operator; several processes may append to it.

    Attributes:
        path: path of the log file.
        head: path of the signed head, preferably on another disk or machine.
        key: private key of the operator.
        clock: returns the current time.
    """

    def __init__(self, path: Path | str, head: Path | str, key: SigningKey, clock: Clock = utc_now) -> None:
        self.path, self.head, self.key, self.clock = Path(path), Path(head), key, clock

    def append(self, event: Mapping[str, Any]) -> None:
        """Append one line and sign the new head.

        Raises:
            ArtefactError: log and head do not match, or the head's signature is not valid; nothing is appended.
            StorageError: the disk is full or not writable.
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
        """Check, before a request is answered, that an append would succeed.

        Raises:
            ArtefactError: log and head do not match, or the head's signature is not valid.
            StorageError: the log is not writable.
        """
        with storage_errors(self.path), locked(self._lock), self._open() as log:
            self._matching_head(log)

    @property
    def _lock(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")

    def _open(self) -> BinaryIO:
        """Open the log for appending; a new file is readable and writable by its owner only."""
        return open(self.path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))

    def _matching_head(self, log: BinaryIO) -> Head:
        size_bytes = os.fstat(log.fileno()).st_size
        head = _read_head(self.head, [self.key.public]) if self.head.exists() else Head()
        if head.size_bytes != size_bytes:
            raise ArtefactError(
                f"{self.path} should end at byte {head.size_bytes} according to {self.head}, found {size_bytes} bytes: "
                "inspect it with prosocial log check, then move both files away to start a new log"
            )
        return head


def check_log(path: Path | str, head: Path | str, keys: Sequence[TrustedKey]) -> LogReport:
    """Check a log line by line against a signed head, the newest or an older copy.

    Args:
        path: path of the log.
        head: path of the signed head.
        keys: public keys that the head may be signed with.

    Raises:
        ArtefactError: a file is missing, or none of the keys signed the head.
    """
    path, head = Path(path), Path(head)
    if not path.is_file():
        raise ArtefactError(f"expected a log at {path}, found no such file: check the path")
    signed = _read_head(head, keys)
    problems: list[str] = []
    number, previous, at_head = 0, BEGINNING, BEGINNING
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            problems += _problems(number, raw, previous)
            previous = _digest(raw.removesuffix(b"\n"))
            at_head = previous if number == signed.lines else at_head
    if number < signed.lines:
        problems.append(f"the head covers {signed.lines} lines, {signed.lines - number} are missing")
    elif at_head != signed.last:
        problems.append(f"line {signed.lines} differs from the one that the head covers")
    return LogReport(number, signed.lines, tuple(problems))


def _problems(number: int, raw: bytes, previous: str) -> list[str]:
    """Return the problems of one line, at most one."""
    if not raw.endswith(b"\n"):
        return [f"line {number} is incomplete"]
    try:
        entry = json.loads(raw)
        actual = entry["line"], entry["previous"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [f"line {number} is not a log entry"]
    if actual[0] != number:
        return [f"line {number} has the line number {actual[0]!r:.20}"]
    return [] if actual[1] == previous else [f"line {number} does not match the line before it: one was changed"]


def _seal_head(path: Path, head: Head, key: SigningKey) -> None:
    subject = [{"name": "log", "digest": {"sha256": head.last}}]
    seal(path, statement(PREDICATE_TYPE, subject, head.model_dump()), key)


def _read_head(path: Path, keys: Sequence[TrustedKey]) -> Head:
    try:
        said, _ = unseal(path, keys)
        if said["predicateType"] != PREDICATE_TYPE:
            raise ArtefactError(f"{path} should be the signed head of a log, found a statement of another type")
        return Head.model_validate(said["predicate"])
    except BrokenSignature as error:
        raise ArtefactError(f"{path} should be the signed head of the log: {error}") from None
    except (KeyError, ValidationError):
        raise ArtefactError(f"{path} should be the signed head of a log, found other fields in it") from None


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
