"""What is wrong with the inputs of an export is said before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from prosocial.core.errors import InputError
from prosocial.export.bundling import export_bundle
folder, out, plain = sys.argv[1], sys.argv[2], sys.argv[3] == "plain"
try:
    export_bundle(folder, out, plain=plain)
except InputError as error:
    print(error)
print("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("steered", "should be a steered folder with decoding.json"),
        ("plain", "should be a"),
        ("full", "should not exist yet"),
    ],
)
def test_a_wrong_path_is_refused_before_torch_is_imported(tmp_path: Path, kind: str, message: str) -> None:
    out = tmp_path / "out"
    if kind == "full":
        out.mkdir()
        (out / "file").touch()
    given = [sys.executable, "-c", SCRIPT, str(tmp_path / "WRONG"), str(out), kind]
    done = subprocess.run(given, capture_output=True, text=True, check=True)
    said, has_torch = done.stdout.strip().splitlines()
    assert message in said and has_torch == "False"
    assert kind == "full" or not out.exists()
