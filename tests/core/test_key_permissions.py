"""A private key that other users can read is warned of."""

import subprocess
import sys
from pathlib import Path

import pytest

from prosocial.core.errors import InputError
from prosocial.core.signing import TrustedKey

from ..signing_helpers import make_key

READ = "import sys; from prosocial.core.signing import SigningKey; SigningKey.read(sys.argv[1])"


@pytest.mark.parametrize(
    ("mode", "warns"), [(0o600, False), (0o400, False), (0o644, True), (0o640, True), (0o604, True)]
)
def test_a_key_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, warns: bool) -> None:
    key = make_key(tmp_path, "own")
    key.chmod(mode)
    done = subprocess.run([sys.executable, "-c", READ, str(key)], capture_output=True, text=True, check=True)
    expected = f"warning: {key} can be read by other users (mode {mode:o}): chmod 600 {key}\n"
    assert done.stderr == (expected if warns else "")


@pytest.mark.parametrize("name", ["[" * 5_000, "a\0b", "."])
def test_a_key_under_a_name_that_no_file_can_have_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        TrustedKey.read(tmp_path / name)
