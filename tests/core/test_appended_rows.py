"""Whatever byte a kill cut a file at: the whole rows come back, nothing else, and the next ones follow them."""

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.errors import InputError

VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=4)


@given(ROWS, ROWS, st.integers(0, 400))
def test_a_file_cut_at_any_byte_keeps_its_whole_rows(
    first: list[dict[str, Any]], second: list[dict[str, Any]], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        file = AppendedRows(path)
        for row in first:
            file.append(row)
        text = path.read_bytes()[:cut] if first else b""
        path.write_bytes(text)

        again = AppendedRows(path)
        assert again.rows == first[: text.count(b"\n")]
        for row in second:
            again.append(row)
        expected = first[: text.count(b"\n")] + second
        assert AppendedRows(path).rows == expected
        assert path.read_bytes().count(b"\n") == len(expected)


def test_threads_do_not_mix_their_rows(tmp_path: Path) -> None:
    file = AppendedRows(tmp_path / "rows.jsonl")
    threads = [
        threading.Thread(target=lambda at=at: [file.append({"at": at, "text": "x" * 9999}) for _ in range(20)])
        for at in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["at"] for row in AppendedRows(file.path).rows) == sorted([*range(4)] * 20)


def test_a_whole_line_that_is_no_row_is_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\nhello\n" + json.dumps({"a": 2}) + "\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match="line 2 should hold JSON"):
        AppendedRows(path)
    assert path.read_bytes() == before


def test_numbers_that_json_has_not_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        AppendedRows(tmp_path / "rows.jsonl").append({"a": float("nan")})
    assert not (tmp_path / "rows.jsonl").exists()
