"""A writer that is killed or whose disk is full leaves a log that stays usable and says what happened."""

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prosocial.cli.main import main
from prosocial.core.errors import ArtefactError, InputError, StorageError
from prosocial.core.signing import SigningKey
from prosocial.core.signing.envelope import seal, statement
from prosocial.steering.audit_log.log import PREDICATE_TYPE, AuditLog, check_log
from prosocial.steering.audit_log.witness import Witness, append_witness, read_witnesses

from ...signing_helpers import make_key

N = 4
Capture = pytest.CaptureFixture[str]
APPEND = """
import sys
from pathlib import Path
from prosocial.core.signing import SigningKey
from prosocial.steering.audit_log.log import AuditLog
log = AuditLog(Path(sys.argv[1]), Path(sys.argv[2]), SigningKey.read(Path(sys.argv[3])))
number = 0
while True:
    log.append({"kind": "request", "number": number})
    print(number, flush=True)
    number += 1
"""


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    key = SigningKey.read(make_key(tmp_path, "operator"))
    log = AuditLog(tmp_path / "log.jsonl", tmp_path / "head.json", key, lambda: datetime(2026, 3, 1, tzinfo=UTC))
    for number in range(N):
        log.append({"kind": "request", "number": number})
    return log


def events(log: AuditLog) -> list[dict[str, object]]:
    return [json.loads(line)["event"] for line in log.path.read_bytes().splitlines()]


def verdict(log: AuditLog) -> str:
    return check_log(log.path, log.head, [log.key.public]).verdict


def last_line(log: AuditLog) -> bytes:
    return log.path.read_bytes().splitlines(keepends=True)[-1]


@pytest.mark.parametrize("n_written", [0, 1, 40, -2, -1])
def test_a_line_that_was_not_written_to_its_end_is_completed_and_recorded(log: AuditLog, n_written: int) -> None:
    whole, line = log.path.read_bytes(), last_line(log)
    kept = line[:n_written]
    log.path.write_bytes(whole[: -len(line)] + kept)
    report = check_log(log.path, log.head, [log.key.public])
    assert report.interrupted and report.verdict == "cannot say" and report.lines == N - 1
    log.append({"kind": "request", "number": N})
    assert log.path.read_bytes().startswith(whole) and verdict(log) == "pass"
    recovery = {"kind": "recovery", "completed_line": N, "bytes_added": len(line) - len(kept)}
    assert events(log)[N:] == [recovery, {"kind": "request", "number": N}]


def test_a_first_line_that_was_never_written_is_completed(log: AuditLog, tmp_path: Path) -> None:
    first = AuditLog(tmp_path / "new.jsonl", tmp_path / "new.head.json", log.key)
    first.append({"kind": "request"})
    first.path.write_bytes(b"")
    first.require_writable()
    assert [event["kind"] for event in events(first)] == ["request", "recovery"] and verdict(first) == "pass"


def cut(n_bytes: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:-n_bytes]


NOT_AN_INTERRUPTION: dict[str, Callable[[bytes], bytes]] = {
    "two lines missing": lambda whole: b"".join(whole.splitlines(keepends=True)[:-2]),
    "a line and a byte missing": lambda whole: b"".join(whole.splitlines(keepends=True)[:-1])[:-1],
    "the last line edited": lambda whole: whole.replace(b'"number":3', b'"number":7'),
    "cut and edited": lambda whole: whole.replace(b'"number":3', b'"number":7')[:-1],
    "cut and zeroed": lambda whole: whole[:-20] + b"\0" * 10,
    "another beginning of the last line": lambda whole: b"".join(whole.splitlines(keepends=True)[:-1]) + b"{",
    "a byte too many": lambda whole: whole + b"\n",
    "a line too many": lambda whole: whole + whole.splitlines(keepends=True)[-1],
    "half a line too many": lambda whole: whole + b'{"event"',
    "emptied": lambda whole: b"",
    "line ends of Windows": lambda whole: whole.replace(b"\n", b"\r\n"),
    "last line end of Windows": lambda whole: whole[:-1] + b"\r",
}
NOT_AN_INTERRUPTION["another beginning of the last line"] = lambda whole: (
    b"".join(whole.splitlines(keepends=True)[:-1]) + b"["
)


@pytest.mark.parametrize("attack", NOT_AN_INTERRUPTION.values(), ids=NOT_AN_INTERRUPTION)
def test_what_no_interruption_does_is_not_repaired(log: AuditLog, attack: Callable[[bytes], bytes]) -> None:
    whole = log.path.read_bytes()
    log.path.write_bytes(attack(whole))
    assert verdict(log) == "fail"
    before = log.path.read_bytes(), log.head.read_bytes()
    with pytest.raises(ArtefactError, match="log check"):
        log.append({})
    assert (log.path.read_bytes(), log.head.read_bytes()) == before


def test_a_log_of_version_0_1_0_is_checked_and_continued(tmp_path: Path) -> None:
    """Its head has no line: an interrupted log of that version is refused as it was then."""
    key = SigningKey.read(make_key(tmp_path, "operator"))
    log = AuditLog(tmp_path / "log.jsonl", tmp_path / "head.json", key)
    log.append({"number": 0})
    log.append({"number": 1})
    report = check_log(log.path, log.head, [key.public])
    old_head = {"lines": 2, "last": report.last, "size_bytes": log.path.stat().st_size}
    seal(log.head, statement(PREDICATE_TYPE, [{"name": "log", "digest": {"sha256": report.last}}], old_head), key)
    assert verdict(log) == "pass"
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-3])
    assert verdict(log) == "fail"
    with pytest.raises(ArtefactError):
        log.append({})
    log.path.write_bytes(whole)
    log.append({"number": 2})
    assert verdict(log) == "pass" and len(events(log)) == 3


@pytest.mark.parametrize("n_kills", [6, pytest.param(30, marks=pytest.mark.prove)])
def test_a_killed_writer_leaves_a_log_that_goes_on(tmp_path: Path, n_kills: int) -> None:
    draw, key = random.Random(5), make_key(tmp_path, "operator")
    log = AuditLog(tmp_path / "log.jsonl", tmp_path / "head.json", SigningKey.read(key))
    n_shown, words = 0, [sys.executable, "-c", APPEND, str(log.path), str(log.head), str(key)]
    for _ in range(n_kills):
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            n_shown += process.stdout.readline() == "0\n"
            time.sleep(draw.random() * 0.2)
            process.kill()
            n_shown += len(process.stdout.read().splitlines())
        assert verdict(log) in ("pass", "cannot say")
        log.require_writable()
        assert verdict(log) == "pass"
        assert sum(event["kind"] == "request" for event in events(log)) >= n_shown, "what was shown is in the log"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "head.json",
        "log.jsonl",
        "operator.pem",
        "operator.pub",
    ]


@pytest.mark.parametrize("room", range(0, 1200, 100))
def test_a_full_disk_leaves_a_log_that_goes_on(log: AuditLog, room: int) -> None:
    """No file may grow beyond a limit: the log, or its larger head, cannot be written to its end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + room, hard))
    n_answered = 0
    try:
        for _ in range(20):
            log.append({"kind": "request", "more": "x" * 100})
            n_answered += 1
    except StorageError as error:
        assert "could not write" in str(error)
    else:
        raise AssertionError("the disk should be full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert verdict(log) in ("pass", "cannot say")
    log.append({"kind": "request", "after": True})
    assert verdict(log) == "pass" and sum("more" in event for event in events(log)) >= n_answered


@pytest.mark.parametrize(
    "event",
    [{"x": float("nan")}, {"x": "\ud800"}, {"x": object()}, {"x": b""}, {"x": "y" * 300_000}, {1: 2, "1": 3}],
)
def test_an_event_that_is_no_line_changes_nothing(log: AuditLog, event: dict[object, object]) -> None:
    before = log.path.read_bytes(), log.head.read_bytes()
    with pytest.raises(InputError):
        log.append(event)  # type: ignore[arg-type]
    assert (log.path.read_bytes(), log.head.read_bytes()) == before


def test_a_line_without_end_takes_no_memory(log: AuditLog) -> None:
    with log.path.open("ab") as stream:
        stream.write(b"x" * (1 << 24))
    report = check_log(log.path, log.head, [log.key.public])
    assert report.verdict == "fail" and "longer than" in report.problems[0] and len(str(report)) < 2000


def test_very_many_problems_are_counted_not_listed(log: AuditLog) -> None:
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b"{}\n" * 5000)
    report = check_log(log.path, log.head, [log.key.public])
    assert report.problems[-1] == "and 4900 more problems" and len(report.problems) == 101


def test_a_link_to_the_log_has_the_same_lock(log: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.jsonl"
    link.symlink_to(log.path)
    assert AuditLog(link, log.head, log.key)._lock == log._lock


@pytest.fixture
def witness(log: AuditLog, tmp_path: Path, capsys: Capture) -> Path:
    path = tmp_path / "witness"
    words = ["log", "witness", str(log.path), "--head", str(log.head), "--key", str(tmp_path / "operator.pub")]
    assert main([*words, "-o", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text())
    return path


def replaced(log: AuditLog, n_lines: int) -> None:
    log.path.unlink()
    log.head.unlink()
    for _ in range(n_lines):
        log.append({"kind": "request"})


GONE: dict[str, Callable[[AuditLog], object]] = {
    "log and head deleted": lambda log: replaced(log, 0),
    "only the log deleted": lambda log: log.path.unlink(),
    "only the head deleted": lambda log: log.head.unlink(),
    "begun anew with fewer lines": lambda log: replaced(log, N - 1),
    "begun anew with as many": lambda log: replaced(log, N),
    "begun anew with more": lambda log: replaced(log, N + 3),
}


@pytest.mark.parametrize("attack", GONE.values(), ids=GONE)
def test_a_witness_notices_a_log_that_is_gone(
    log: AuditLog, witness: Path, tmp_path: Path, attack: Callable[[AuditLog], object], capsys: Capture
) -> None:
    words = ["log", "check", str(log.path), "--head", str(log.head), "--key", str(tmp_path / "operator.pub")]
    log.append({"kind": "request"})
    assert main([*words, "--witness", str(witness)]) == 0
    attack(log)
    assert main([*words, "--witness", str(witness)]) == 1
    assert "witness saw" in capsys.readouterr().out


def test_an_older_pair_is_noticed(log: AuditLog, tmp_path: Path) -> None:
    old = log.path.read_bytes(), log.head.read_bytes()
    log.append({"kind": "request"})
    report = check_log(log.path, log.head, [log.key.public])
    append_witness(tmp_path / "w", Witness(lines=report.lines, last=report.last, time="2026-03-01T00:00:00Z"))
    log.path.write_bytes(old[0])
    log.head.write_bytes(old[1])
    witnesses = read_witnesses([tmp_path / "w"])
    assert verdict(log) == "pass"
    assert check_log(log.path, log.head, [log.key.public], witnesses=witnesses).verdict == "fail"


def test_two_witnesses_that_disagree_fail(log: AuditLog) -> None:
    report = check_log(log.path, log.head, [log.key.public])
    honest, other = (Witness(lines=N, last=last, time="2026-03-01T00:00:00Z") for last in (report.last, "0" * 64))
    for pair in ([honest, other], [other, honest]):
        assert check_log(log.path, log.head, [log.key.public], witnesses=pair).verdict == "fail"


def test_no_witness_is_taken_of_a_changed_log(log: AuditLog, tmp_path: Path) -> None:
    log.path.write_bytes(log.path.read_bytes() + b"{}\n")
    words = ["log", "witness", str(log.path), "--head", str(log.head), "--key", str(tmp_path / "operator.pub")]
    assert main([*words, "-o", str(tmp_path / "w")]) == 2 and not (tmp_path / "w").exists()


@pytest.mark.parametrize("text", ["", "{}\n", '{"schema": "prosocial.log_witness/1", "lines": -1}\n', "x\n", "[1]\n"])
def test_a_witness_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "w").write_text(text)
    with pytest.raises(InputError):
        read_witnesses([tmp_path / "w"])
