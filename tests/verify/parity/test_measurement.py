"""A file of measurements that somebody changed is refused in one line."""

import zipfile
from pathlib import Path

import pytest

from prosocial.core.errors import ArtefactError
from prosocial.verify.parity.measurement import read_measurement

HEADERS = {
    "an open bracket": b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,",
    "no dictionary": b"3",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
    "too many numbers": b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
}


@pytest.mark.parametrize("what", HEADERS)
def test_an_array_with_a_damaged_header_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    header, path = HEADERS[what] + b"\n", tmp_path / "measurements.npz"
    with zipfile.ZipFile(path, "w") as archive:
        start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr("logit.npy", start + header + bytes(12))

    with pytest.raises(ArtefactError, match="should be a file of measurements"):
        read_measurement(path)
