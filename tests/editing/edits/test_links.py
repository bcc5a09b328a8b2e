"""No edit and no undo follows a symbolic link out of the folder that it was given."""

import shutil
from pathlib import Path

import pytest

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, sha256_file, write_json
from prosocial.editing import apply_edit, plan_edit, undo_edit
from prosocial.editing.checkpoints import Checkpoint
from prosocial.editing.edits.record import RECORD_NAME
from prosocial.editing.vectors import vector_from_checkpoints

from ...weights_helpers import moved, some_tensors, write_checkpoint

INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "base", some_tensors(), n_shards=2)
    write_checkpoint(tmp_path / "harmful", moved(some_tensors()))
    (tmp_path / "base/notes.txt").write_text("notes")
    (tmp_path / "base/extra").mkdir()
    (tmp_path / "base/extra/vocab.txt").write_text("words")
    vector_from_checkpoints(base=tmp_path / "base", harmful=tmp_path / "harmful", out=tmp_path / "vector")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def edit(folder: Path, target: str, out: str) -> None:
    plan = plan_edit(Checkpoint.open(folder / target), folder / "vector", scale=0.5)
    apply_edit(plan, folder / out, patch=folder / f"{out}.patch")


def lead_out(folder: Path, path: str) -> None:
    """Move a file out of its folder and leave a link to it."""
    away = folder.parent / "elsewhere" / Path(path).name
    shutil.move(folder / path, away)
    (folder / path).symlink_to(away)


@pytest.mark.parametrize("path", ["notes.txt", "extra/vocab.txt", "config.json", SHARD, INDEX])
def test_an_edit_refuses_a_link_out_of_the_target(folder: Path, path: str) -> None:
    lead_out(folder / "base", path)

    with pytest.raises(ArtefactError, match=rf"{path} should lie in its folder, it is a link to .*elsewhere"):
        edit(folder, "base", "out")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("path", ["notes.txt", "extra/vocab.txt", "config.json", SHARD, INDEX, RECORD_NAME])
@pytest.mark.parametrize("source", ["base", "patch"])
def test_an_undo_refuses_a_link_out_of_the_edited_folder(folder: Path, path: str, source: str) -> None:
    edit(folder, "base", "edited")
    lead_out(folder / "edited", path)
    given = {"base": folder / "base"} if source == "base" else {"patch": folder / "edited.patch"}

    with pytest.raises(ArtefactError, match="should lie in its folder"):
        undo_edit(folder / "edited", folder / "restored", **given)
    assert not (folder / "restored").exists()


def test_a_record_that_names_a_file_behind_a_linked_folder_is_refused(folder: Path) -> None:
    edit(folder, "base", "edited")
    (folder / "elsewhere/secret.txt").write_text("secret")
    (folder / "edited/more").symlink_to(folder / "elsewhere", target_is_directory=True)
    record = read_json(folder / "edited" / RECORD_NAME)
    record["result"]["side_files"]["more/secret.txt"] = sha256_file(folder / "elsewhere/secret.txt")
    write_json(folder / "edited" / RECORD_NAME, record)

    with pytest.raises(ArtefactError, match="should lie in its folder"):
        undo_edit(folder / "edited", folder / "restored", base=folder / "base")


def test_a_linked_folder_in_the_target_is_not_copied(folder: Path) -> None:
    (folder / "elsewhere/secret.txt").write_text("secret")
    (folder / "base/more").symlink_to(folder / "elsewhere", target_is_directory=True)
    edit(folder, "base", "out")

    assert not (folder / "out/more").exists()


def test_links_within_the_folder_and_of_the_hubs_cache_are_followed(folder: Path) -> None:
    """The control: a snapshot is nothing but links to blobs, and a target may be given by a link to its folder."""
    snapshot, blobs = folder / "models--a--b/snapshots/1234", folder / "models--a--b/blobs"
    blobs.mkdir(parents=True)
    for path in sorted((folder / "base").rglob("*")):
        if path.is_file():
            link = snapshot / path.relative_to(folder / "base")
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, blobs / path.name)
            link.symlink_to(blobs / path.name)
    (snapshot / "again.txt").symlink_to("notes.txt")
    (folder / "latest").symlink_to(snapshot, target_is_directory=True)
    edit(folder, "latest", "out")

    assert (folder / "out/again.txt").read_text() == "notes"
    assert not any(path.is_symlink() for path in (folder / "out").rglob("*"))
    undo_edit(folder / "out", folder / "restored", base=folder / "latest")
    assert (folder / "restored" / SHARD).read_bytes() == (folder / "base" / SHARD).read_bytes()
