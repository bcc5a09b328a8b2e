"""The tables of docs/migration.md agree with the package."""

import re
from importlib import import_module

import pytest

from prosocial.moved import new_path

from .pages import ROOT

PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its first two lines."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")][2:]


def paths(cell: str) -> list[str]:
    """Return the import paths in a cell; one that begins with a dot is beside the full path before it."""
    full: list[str] = []
    for path in re.findall(r"`(\.?\w[\w.]*)`", cell):
        full.append(full[0].rpartition(".")[0] + path if path.startswith(".") else path)
    return full


@pytest.mark.parametrize(("old", "new"), rows("Folders that moved"))
def test_a_folder_moved_where_the_page_says(old: str, new: str) -> None:
    homes = {path: str(new_path(path)) for path in paths(old)}

    assert homes and {path: home for path, home in homes.items() if not home.startswith(tuple(paths(new)))} == {}


@pytest.mark.parametrize(("names", "old", "new"), rows("Names that moved"))
def test_a_name_is_in_the_new_list_and_no_longer_in_the_old(names: str, old: str, new: str) -> None:
    (now,) = paths(new)
    (before,) = [new_path(path) or path for path in paths(old)]

    assert set(paths(names)) <= set(import_module(now).__all__)
    assert set(paths(names)).isdisjoint(import_module(before).__all__)
