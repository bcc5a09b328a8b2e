"""A line of the log that was edited, removed or moved is found, and a cut tail too."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from prosocial.core.errors import ArtefactError
from prosocial.core.files import canonical_json
from prosocial.core.signing import SigningKey
from prosocial.steering.audit_log.log import AuditLog, LogReport, check_log

from ...other_systems import prelude
from ...signing_helpers import make_key

N = 6


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    key = SigningKey.read(make_key(tmp_path, "operator"))
    log = AuditLog(tmp_path / "log.jsonl", tmp_path / "elsewhere.json", key, lambda: datetime(2026, 3, 1, tzinfo=UTC))
    for number in range(N):
        log.append({"kind": "request", "number": number})
    return log


def check(log: AuditLog, head: Path | None = None) -> LogReport:
    return check_log(log.path, head or log.head, [log.key.public])


def copy_of_head(log: AuditLog) -> Path:
    copy = log.head.with_name("copy.json")
    copy.write_bytes(log.head.read_bytes())
    return copy


def lines(log: AuditLog) -> list[bytes]:
    return log.path.read_bytes().splitlines(keepends=True)


def test_a_log_that_nobody_touched_passes(log: AuditLog) -> None:
    assert (check(log).lines, check(log).signed, check(log).problems) == (N, N, ()) and check(log).verdict == "pass"
    assert [json.loads(line)["event"]["number"] for line in lines(log)] == list(range(N))


def edited(found: list[bytes]) -> list[bytes]:
    return [*found[:2], found[2].replace(b'"number":2', b'"number":9'), *found[3:]]


def rechained(found: list[bytes]) -> list[bytes]:
    """Edit a line and mend the chain after it, as who knows how it is made would."""
    kept, previous = edited(found), "0" * 64
    for at, line in enumerate(kept):
        kept[at] = canonical_json(json.loads(line) | {"previous": previous}).encode() + b"\n"
        previous = hashlib.sha256(kept[at][:-1]).hexdigest()
    return kept


ATTACKS: list[tuple[str, Callable[[list[bytes]], list[bytes]], str]] = [
    ("edited", edited, "line 4 does not match the line before"),
    ("last one edited", lambda found: [*found[:-1], found[-1].replace(b"5", b"6")], "line 6"),
    ("rechained", rechained, "line 6 differs from the one"),
    ("removed", lambda found: found[:2] + found[3:], "line 3 has the line number 4"),
    ("first removed", lambda found: found[1:], "line 1 has the line number 2"),
    ("reordered", lambda found: [found[1], found[0], *found[2:]], "line 1 has"),
    ("doubled", lambda found: [found[0], *found], "line 2 has"),
    ("tail cut", lambda found: found[:-2], "2 are missing"),
    ("cut in an earlier line", lambda found: [*found[:-2], found[-2][:-5]], "line 5 is incomplete"),
    ("cut and edited", lambda found: [*found[:-1], found[-1][:-5].replace(b"5", b"6")], "line 6 is incomplete"),
    ("emptied", lambda found: [], "6 are missing"),
    ("no line of a log", lambda found: [*found[:3], b"hello\n", *found[3:]], "line 4 is not a log entry"),
    ("end of an earlier line cut", lambda found: [*found[:-2], found[-2][:-1]], "incomplete"),
]


@pytest.mark.parametrize(("attack", "problem"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_what_was_done_to_a_log_is_found(
    log: AuditLog, attack: Callable[[list[bytes]], list[bytes]], problem: str
) -> None:
    log.path.write_bytes(b"".join(attack(lines(log))))
    found = check(log)
    assert found.verdict == "fail" and any(problem in each for each in found.problems)


def test_a_line_after_the_head_is_vouched_for_by_nobody(log: AuditLog) -> None:
    older = copy_of_head(log)
    log.append({"kind": "request"})
    assert check(log).verdict == "pass" and check(log, older).problems == ()
    assert check(log, older).verdict == "cannot say"


def test_an_older_head_finds_a_log_that_was_begun_anew(log: AuditLog) -> None:
    """The head's own key does not help who rewrites both files: a copy elsewhere still tells."""
    copy = copy_of_head(log)
    log.path.unlink()
    log.head.unlink()
    for _ in range(N):
        log.append({"kind": "request"})
    assert check(log).verdict == "pass" and check(log, copy).problems == (
        "line 6 differs from the one that the head covers",
    )


@pytest.mark.parametrize("attack", [edited, lambda found: found[:-2], lambda found: [*found, b"{}\n"]])
def test_a_log_that_does_not_end_where_its_head_says_is_not_continued(
    log: AuditLog, attack: Callable[[list[bytes]], list[bytes]]
) -> None:
    log.path.write_bytes(b"".join(attack(lines(log))))
    if attack is edited:  # of the same size: appending does not read it all, checking does
        log.append({})
        assert check(log).verdict == "fail"
        return
    before = log.path.read_bytes()
    with pytest.raises(ArtefactError, match="log check"):
        log.append({})
    assert log.path.read_bytes() == before


def test_a_log_whose_head_was_taken_away_is_not_continued(log: AuditLog) -> None:
    log.head.unlink()
    with pytest.raises(ArtefactError, match="at byte 0"):
        log.require_writable()


def test_a_head_of_another_key_vouches_for_nothing(log: AuditLog, tmp_path: Path) -> None:
    stranger = SigningKey.read(make_key(tmp_path, "stranger"))
    with pytest.raises(ArtefactError, match="none of the 1 trusted keys"):
        check_log(log.path, log.head, [stranger.public])
    with pytest.raises(ArtefactError, match="none of the 1 trusted keys"):
        AuditLog(log.path, log.head, stranger).append({})


def test_several_writers_make_one_chain(log: AuditLog) -> None:
    threads = [threading.Thread(target=lambda: [log.append({"kind": "request"}) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert check(log).verdict == "pass" and check(log).lines == N + 20


@pytest.mark.parametrize("system", ["here", "windows"])
def test_several_processes_make_one_chain(log: AuditLog, tmp_path: Path, system: str) -> None:
    program = "" if system == "here" else prelude(system)
    program += f"""
from pathlib import Path
from prosocial.steering import AuditLog
from prosocial.core.signing import SigningKey
key = SigningKey.read(Path({str(tmp_path / "operator.pem")!r}))
log = AuditLog(Path({str(log.path)!r}), Path({str(log.head)!r}), key)
for _ in range(10):
    log.append({{"kind": "request"}})
"""
    for process in [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]:
        assert process.wait() == 0
    assert check(log).verdict == "pass" and check(log).lines == N + 20
    assert log.path.stat().st_mode & 0o777 == 0o600
