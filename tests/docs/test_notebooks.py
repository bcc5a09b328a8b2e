"""The notebooks in examples/ run on a small quickstart, and the outputs they store name no folder of a machine."""

import re
from pathlib import Path

import pytest

from .conftest import copy_run
from .notebooks import NOTEBOOKS, cells, execute


def test_there_are_two() -> None:
    assert len(NOTEBOOKS) >= 2


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_run(small_run, tmp_path)
    monkeypatch.chdir(tmp_path)

    printed = execute(notebook)

    assert len(printed) == len(cells(notebook)) and sum(map(bool, printed)) >= 5


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_shows_is_of_no_machine(notebook: Path) -> None:
    shown = [text for cell in cells(notebook) for output in cell["outputs"] for text in output.get("text", ())]

    assert shown, "the outputs of a run should be stored"
    assert [text for text in shown if re.search(r"(?<![\w.])/\w+/|[A-Z]:\\", text)] == []
