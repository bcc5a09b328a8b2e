"""An outside input is known by its content, wherever it lies."""

import shutil
from pathlib import Path

import pytest

from prosocial.core.errors import InputError
from prosocial.recipes.workflow.stage import Outside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "a").write_text("1")
    (tmp_path / "data" / "deep" / "b").write_text("2")
    return tmp_path / "data"


def test_a_moved_copy_is_the_same_and_the_order_of_writing_does_not_matter(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy" / "deep").mkdir(parents=True)
    (tmp_path / "copy" / "deep" / "b").write_text("2")
    (tmp_path / "copy" / "a").write_text("1")

    assert Outside(folder).digest() == Outside(tmp_path / "copy").digest()


@pytest.mark.parametrize("change", ["byte", "name", "more", "empty file"])
def test_any_change_of_content_is_seen(folder: Path, change: str) -> None:
    before = Outside(folder).digest()
    match change:
        case "byte":
            (folder / "a").write_text("0")
        case "name":
            (folder / "a").rename(folder / "c")
        case "more":
            shutil.copy(folder / "a", folder / "c")
        case _:
            (folder / "nothing").touch()

    assert Outside(folder).digest() != before


def test_a_link_to_a_file_counts_by_its_content(folder: Path, tmp_path: Path) -> None:
    before = Outside(folder).digest()
    (tmp_path / "blob").write_text("1")
    (folder / "a").unlink()
    (folder / "a").symlink_to(tmp_path / "blob")

    assert Outside(folder).digest() == before


def test_a_link_to_a_folder_is_refused_since_its_content_would_go_unseen(folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(InputError, match="links to folders"):
        Outside(folder).digest()
