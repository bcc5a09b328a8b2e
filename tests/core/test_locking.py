"""A lock is held by one process, deleted at the end, and released when its holder is killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from prosocial.core.errors import InputError
from prosocial.core.locking import locked

HOLD = """
import sys
from pathlib import Path
from prosocial.core.locking import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from prosocial.core.locking import locked
count = Path(sys.argv[2])
for _ in range(100):
    with locked(Path(sys.argv[1])):
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    words = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="busy"), locked(lock, refusal="busy: wait"):
            pass
        holder.kill()
    assert lock.exists()  # what a killed process leaves is in nobody's way
    with locked(lock, refusal="busy: wait"):
        assert lock.exists()
    assert not lock.exists()


def test_a_lock_is_released_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        _ = 1 / 0
    with locked(tmp_path / "lock", refusal="busy"):
        pass


def test_processes_that_wait_take_turns_although_each_deletes_the_lock(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    words = [sys.executable, "-c", COUNT, str(tmp_path / "lock"), str(tmp_path / "count")]
    for process in [subprocess.Popen(words) for _ in range(4)]:
        assert process.wait() == 0
    assert (tmp_path / "count").read_text() == "400"
    assert not (tmp_path / "lock").exists()
