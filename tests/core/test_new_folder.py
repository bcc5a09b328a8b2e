"""A new folder obeys the umask, is written by one process at a time, and what a killed process left is deleted."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prosocial.core.errors import InputError
from prosocial.core.files import new_folder
from prosocial.core.resumable import resumable_folder

HOLD = """
import sys
from pathlib import Path
from prosocial.core.files import new_folder
with new_folder(Path(sys.argv[1])) as aside:
    (aside / "half").write_text("")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_obeys_the_umask(tmp_path: Path, umask: int) -> None:
    with new_folder(tmp_path / "one") as aside:
        (aside / "file").write_text("")
    with resumable_folder(tmp_path / "two", key="0" * 16):
        pass
    assert mode(tmp_path / "one") == mode(tmp_path / "two") == 0o777 & ~umask
    assert mode(tmp_path / "one" / "file") == 0o666 & ~umask


@pytest.mark.parametrize("chosen", [0o700, 0o750, 0o775])
def test_an_empty_folder_keeps_its_permissions(tmp_path: Path, chosen: int) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(chosen)
    with new_folder(tmp_path / "out"):
        pass
    assert mode(tmp_path / "out") == chosen


def test_a_second_writer_is_refused_and_what_a_killed_one_left_is_deleted(tmp_path: Path) -> None:
    out = tmp_path / "out[1]"
    words = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"writing\n"
        with pytest.raises(InputError, match="another process is writing it"), new_folder(out):
            pass
        assert list(tmp_path.glob(".*.partial")), "the first one's work is untouched"
        holder.kill()
    (tmp_path / ".other.abcdefgh.partial").mkdir()
    with new_folder(out) as aside:
        (aside / "whole").write_text("")
        assert [path.name for path in tmp_path.glob(".out*.partial")] == [aside.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.abcdefgh.partial", "out[1]"]


def test_what_somebody_else_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="should not exist yet"), new_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".*"))
