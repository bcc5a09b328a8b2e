"""What earlier versions wrote still opens, and still says what it said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from .comparing import differences
from .observing import OBSERVERS, vectors

GOLDEN = Path(__file__).parent
EXPECTED: dict[str, dict[str, Any]] = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(GOLDEN.glob("*/expected.json"))
}
CASES = [(version, name) for version, artefacts in EXPECTED.items() for name in artefacts]
LARGEST_BYTES = 1_500_000
OF_A_MACHINE = (b"PRIVATE KEY", b"/home/", b"/root/", b"/tmp/", str(GOLDEN.parents[1]).encode())

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's


@pytest.mark.parametrize(("version", "artefact"), CASES)
def test_an_artefact_opens_and_says_what_it_said(
    version: str, artefact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOLDEN / version)  # the recipes name their data from there
    actual = json.loads(json.dumps(OBSERVERS[artefact](GOLDEN / version, tmp_path)))

    assert list(differences(EXPECTED[version][artefact], actual)) == []


def test_one_changed_bit_is_found(tmp_path: Path) -> None:
    """The control: the comparison above can fail."""
    version = next(iter(EXPECTED))
    shutil.copytree(GOLDEN / version / "vectors", tmp_path / "vectors")
    weights = tmp_path / "vectors" / "dense" / "vector.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-4] ^= 1  # the lowest bit of the last number
    weights.write_bytes(raw)
    found = list(differences(EXPECTED[version]["vectors"], vectors(tmp_path, tmp_path)))

    assert [line.partition(" ")[0] for line in found] == [".dense.digest"]


@pytest.mark.parametrize("version", EXPECTED)
def test_a_golden_folder_is_small_and_holds_no_private_key_and_no_path_of_a_machine(version: str) -> None:
    files = [path for path in (GOLDEN / version).rglob("*") if path.is_file()]
    wrong = {path.name for path in files for word in OF_A_MACHINE if word in path.read_bytes()}

    assert wrong == set()
    assert sum(path.stat().st_size for path in files) < LARGEST_BYTES
