"""Whatever stands in a file: a reader returns or says one line, soon, in little memory, and writes nothing.

The usual tier runs a few examples of each reader, `make prove` two thousand, and PROSOCIAL_FUZZ=20000 as many as it
says, with other cases each time.
"""

import os
import resource
import shutil
import time
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from prosocial.core.errors import ProsocialError

from .readers import GOLDEN, READERS, Reader, reseal

ROOT = Path(__file__).parents[2]
LONGEST_S = 10.0
LARGEST_MB = 1_000
FEW = 25
MANY = int(os.environ.get("PROSOCIAL_FUZZ", "2000"))


def _files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _place(error: Exception) -> str:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/prosocial/" in frame.filename or str(ROOT) in frame.filename
    ]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}: {error}"[:400]


def _check(reader: Reader, work: Path, examples: int, *, derandomize: bool) -> None:
    folder, out = work / "copy", work / "out"
    shutil.copytree(GOLDEN / reader.folder, folder)
    shutil.copytree(GOLDEN / "keys", work / "keys")  # what trust files name
    out.mkdir()
    reseal(folder) if (folder / "manifest.json").is_file() else None
    valid = (folder / reader.file).read_bytes()
    reader.read(folder, out)  # the control: the valid artefact is read
    shutil.rmtree(out)
    out.mkdir()
    before = _files(folder)

    @settings(
        max_examples=max(5, examples // reader.slow),
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.damage(valid))
    def holds(damaged: bytes) -> None:
        (folder / reader.file).write_bytes(damaged)
        started, peak = time.monotonic(), _peak_mb()
        try:
            reader.read(folder, out)
        except ProsocialError as error:
            message = str(error)
            assert message and "\n" not in message and len(message) < 2_000, message[:3_000]
            assert not any(out.iterdir()), "a refused input left something behind"
        except Exception as error:  # not on purpose: name it in one line, with the place in the package
            raise AssertionError(_place(error)) from None
        assert time.monotonic() - started < LONGEST_S and _peak_mb() - peak < LARGEST_MB
        after = _files(folder)
        assert after.keys() == before.keys(), after.keys() ^ before.keys()
        shutil.rmtree(out)
        out.mkdir()

    holds()


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_damaged_file_gets_a_verdict_or_one_line(reader: Reader, tmp_path: Path) -> None:
    _check(reader, tmp_path, FEW, derandomize=True)


@pytest.mark.prove
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_thousands_of_damaged_files_get_a_verdict_or_one_line(reader: Reader, tmp_path: Path) -> None:
    _check(reader, tmp_path, MANY, derandomize=MANY <= 2_000)
