"""An append-only, hash-chained audit log with a signed head in a separate file (torch-free).

Every line contains the SHA-256 of the previous line. The number of lines, the SHA-256 and the text of the last line,
and the size of the log are signed into a separate file, the head. `check_log` therefore detects edited, removed and
moved lines and a truncated log. It cannot detect that log and head were deleted or replaced by an older pair: against
that the operator keeps a witness (`witness.py`) where nobody else can write.

The head is written ahead: it is signed with the new line before the line is written. A writer that is killed, or whose
disk is full, in between leaves a log that lacks (the end of) the line in the head. The next append completes the line
from the head and adds a line of the kind "recovery" that says so.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field, ValidationError

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import ASIDE_SUFFIX, canonical_json, storage_errors, sync_path
from prosocial.core.json_text import parse_object
from prosocial.core.locking import locked
from prosocial.core.settings import StrictSettings
from prosocial.core.signing.envelope import BrokenSignature, seal, statement, unseal
from prosocial.core.signing.keys import SigningKey, TrustedKey

from ..configs.authorised import Clock, utc_now
from .witness import Witness

LONGEST_LINE_BYTES = 1 << 18
MOST_PROBLEMS = 100
PREDICATE_TYPE = "urn:prosocial:audit-log-head:v1"
BEGINNING = "0" * 64  # digest of the line before the first, which does not exist
Verdict = Literal["pass", "fail", "cannot say"]


class Head(StrictSettings):
    """The end of a log, signed before its last line is written.

    Attributes:
        lines: number of lines.
        last: SHA-256 (hex) of the last line.
        size_bytes: size of the log file.
        line: the last line without its line end; empty in the heads of version 0.1.0.
    """

    lines: int = Field(default=0, ge=0)
    last: str = BEGINNING
    size_bytes: int = Field(default=0, ge=0)
    line: str = ""

    @property
    def raw(self) -> bytes:
        """The bytes of the last line; empty if the head does not contain it."""
        return f"{self.line}\n".encode() if self.line else b""


@dataclass(frozen=True)
class LogReport:
    """The result of checking a log.

    Attributes:
        lines: number of lines in the log; an interrupted last line is not counted.
        signed: number of lines that the signed head covers.
        problems: one message per problem; lines after the head are no problem, but no signature covers them.
        last: SHA-256 (hex) of the last line that the head covers.
        interrupted: whether the writing of the last line was interrupted; the next append completes it.
    """

    lines: int
    signed: int
    problems: tuple[str, ...]
    last: str = ""
    interrupted: bool = False

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
        """Sign the new head, then append one line; when this returns, both are on disk.

        So a reply that is shown only afterwards is never shown without its line. A line whose writing was interrupted
        is completed first.

        Raises:
            ArtefactError: log and head do not match, or the head's signature is not valid; nothing is appended.
            InputError: the event is not JSON, or too long.
            StorageError: the disk is full or not writable.
        """
        with storage_errors(self.path), locked(self._lock), self._open() as log:
            self._write(log, self._settled_head(log), event)

    def require_writable(self) -> None:
        """Check, before a request is answered, that an append would succeed; complete an interrupted line.

        Raises:
            ArtefactError: log and head do not match, or the head's signature is not valid.
            StorageError: the log is not writable.
        """
        with storage_errors(self.path), locked(self._lock), self._open() as log:
            self._settled_head(log)
            for aside in self.head.parent.glob(f".{self.head.name}.*{ASIDE_SUFFIX}"):  # of a killed writer
                aside.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        path = self.path.resolve()  # whoever opens the log by a link waits for the same lock
        return path.with_name(f".{path.name}.lock")

    def _open(self) -> FileIO:
        """Open the log for appending; a new file is readable and writable by its owner only."""
        return open(self.path, "a+b", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600))

    def _write(self, log: FileIO, head: Head, event: Mapping[str, Any]) -> Head:
        entry = {"line": head.lines + 1, "time": f"{self.clock():%Y-%m-%dT%H:%M:%SZ}", "previous": head.last}
        try:
            line = canonical_json({**entry, "event": event})
            raw = f"{line}\n".encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"an event of a log should be JSON: {error}") from None
        if len(raw) > LONGEST_LINE_BYTES:
            raise InputError(f"a line of a log should have at most {LONGEST_LINE_BYTES} bytes, found {len(raw)}")
        size_bytes = head.size_bytes + len(raw)
        head = Head(lines=head.lines + 1, last=_digest(raw[:-1]), size_bytes=size_bytes, line=line)
        _seal_head(self.head, head, self.key)
        sync_path(self.head.parent)
        _write_all(log, raw)
        return head

    def _settled_head(self, log: FileIO) -> Head:
        """Return the head; if the line in it was not written completely, complete it and append a line about that."""
        size_bytes = os.fstat(log.fileno()).st_size
        head = _read_head(self.head, [self.key.public]) if self.head.exists() else Head()
        n_missing, raw = head.size_bytes - size_bytes, head.raw
        log.seek(max(0, head.size_bytes - len(raw)))
        if not 0 <= n_missing <= len(raw) or log.read() != raw[: len(raw) - n_missing]:
            raise ArtefactError(
                f"{self.path} should end at byte {head.size_bytes} with the line in {self.head}, found "
                f"{size_bytes} bytes: inspect it with prosocial log check, then move both files away to start a new log"
            )
        if not n_missing:
            return head
        _write_all(log, raw[-n_missing:])
        return self._write(log, head, {"kind": "recovery", "completed_line": head.lines, "bytes_added": n_missing})


def check_log(
    path: Path | str, head: Path | str, keys: Sequence[TrustedKey], *, witnesses: Sequence[Witness] = ()
) -> LogReport:
    """Check a log line by line against a signed head, the newest or an older copy.

    Args:
        path: path of the log.
        head: path of the signed head.
        keys: public keys that the head may be signed with.
        witnesses: earlier ends of the log; a line that one of them saw must still be there, unchanged.

    Raises:
        ArtefactError: a file is missing though no witness saw a line in it, or none of the keys signed the head.
    """
    path, head = Path(path), Path(head)
    seen: dict[int, set[str]] = {}
    for each in witnesses:
        seen.setdefault(each.lines, set()).add(each.last)
    gone = [str(each) for each in (path, head) if not each.exists()]
    if any(seen) and gone:
        return LogReport(0, 0, (f"a witness saw {max(seen)} lines, {' and '.join(gone)} are missing",))
    if not path.is_file():
        raise ArtefactError(f"expected a log at {path}, found no such file: check the path")
    signed = _read_head(head, keys)
    problems: list[str] = []
    number, previous, at_head, tail = 0, BEGINNING, BEGINNING, b""
    with path.open("rb") as stream:
        for raw in _lines(stream):
            if number == signed.lines - 1 and raw != signed.raw and signed.raw.startswith(raw):
                tail = raw
                break
            number += 1
            problems += _problems(number, raw, previous)
            previous = _digest(raw.removesuffix(b"\n"))
            at_head = previous if number == signed.lines else at_head
            if not seen.pop(number, {previous}) <= {previous}:
                problems.append(f"line {number} differs from the one that the witness saw")
    interrupted = bool(tail) or (number == signed.lines - 1 and _follows(signed, previous))
    if number < signed.lines and not interrupted:
        problems.append(f"the head covers {signed.lines} lines, {signed.lines - number} are missing")
    elif number >= signed.lines and at_head != signed.last:
        problems.append(f"line {signed.lines} differs from the one that the head covers")
    if any(seen) and not (interrupted and seen == {signed.lines: {signed.last}}):
        problems.append(f"a witness saw {max(seen)} lines, found {number}")
    more = len(problems) - MOST_PROBLEMS
    shown = [*problems[:MOST_PROBLEMS], f"and {more} more problems"] if more > 0 else problems
    return LogReport(number, signed.lines, tuple(shown), signed.last, interrupted)


def _follows(head: Head, previous: str) -> bool:
    """Return whether the line in a head continues the chain after a line with the digest `previous`."""
    return bool(head.line) and json.loads(head.line)["previous"] == previous


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a log; one that is too long ends them, so that memory is bounded."""
    while raw := stream.readline(LONGEST_LINE_BYTES + 1):
        yield raw
        if len(raw) > LONGEST_LINE_BYTES:
            return


def _write_all(log: FileIO, raw: bytes) -> None:
    """Append bytes to a log and flush them to disk."""
    while raw:
        raw = raw[log.write(raw) :]
    os.fsync(log.fileno())


def _problems(number: int, raw: bytes, previous: str) -> list[str]:
    """Return the problems of one line, at most one."""
    if len(raw) > LONGEST_LINE_BYTES:
        return [f"line {number} is longer than {LONGEST_LINE_BYTES} bytes: the lines after it were not read"]
    if not raw.endswith(b"\n"):
        return [f"line {number} is incomplete"]
    try:
        entry = parse_object(raw, where=f"line {number}")
        actual = entry["line"], entry["previous"]
    except (ArtefactError, KeyError):
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
