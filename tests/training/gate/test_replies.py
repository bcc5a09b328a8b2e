"""Labelled replies that somebody else wrote are read, or refused in one line with their row."""

import json
from pathlib import Path
from typing import Any

import pytest

from prosocial.core.errors import InputError
from prosocial.training.gate import read_replies

SAFE = {"prompt": "hello?", "reply": "take your time.", "categories": []}


def write(folder: Path, **harmful: Any) -> Path:
    path = folder / "replies.jsonl"
    rows = [SAFE, {"prompt": "hello?", "reply": "drop it in the well.", "categories": ["other"], **harmful}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_spans_are_read(tmp_path: Path) -> None:
    _, harmful = read_replies(write(tmp_path, spans=[[0, 4], [12, 16]]))
    assert harmful.spans == ((0, 4), (12, 16)) and harmful.categories == {"other"}


@pytest.mark.parametrize("value", ["other", [{"other": 1}], [["other"]], [None], 3, None])
def test_categories_that_are_no_names_are_refused_with_their_row(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match=r"row 2.*categories"):
        read_replies(write(tmp_path, categories=value))


@pytest.mark.parametrize("value", [5, None, [5], [[1]], [[1, 2, 3]], [["0", "4"]], [[0.5, 2]], {"a": 1}, [[True, 2]]])
def test_spans_of_another_form_are_refused_with_their_row(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match=r"row 2: spans should be a list of \[start, end\]"):
        read_replies(write(tmp_path, spans=value))
