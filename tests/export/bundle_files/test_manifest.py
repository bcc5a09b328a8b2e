"""The manifest: one byte changed, one file more or less is found and named."""

import json
from pathlib import Path

import pytest

from prosocial.core.errors import ArtefactError
from prosocial.core.files import blake3_file, sha256_file
from prosocial.export import check_manifest, write_manifest
from prosocial.export.bundle_files.manifest import ManifestDifference, compare_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "fiction.bin").write_bytes(b"preset")
    for name in ("parity.json", "README.md", "model.sig"):
        (tmp_path / name).write_text("not covered")
    write_manifest(tmp_path, facts={"kind": "plain"})
    return tmp_path


def test_every_covered_file_is_listed_with_its_digest(folder: Path) -> None:
    manifest = check_manifest(folder)
    assert manifest["kind"] == "plain" and list(manifest["files"]) == ["model.onnx", "presets/fiction.bin"]
    entry = manifest["files"]["model.onnx"]
    path = folder / "model.onnx"
    assert entry == {"sha256": sha256_file(path), "blake3": blake3_file(path), "size_bytes": 5}


def test_what_is_not_covered_may_change(folder: Path) -> None:
    (folder / "README.md").write_text("a new card")
    (folder / "signatures").mkdir()
    (folder / "signatures" / "anna.json").write_text("{}")
    (folder / "parity.json").unlink()
    assert not compare_manifest(folder)


@pytest.mark.parametrize("has_blake3", [True, False])
def test_every_difference_is_named(folder: Path, has_blake3: bool) -> None:
    if not has_blake3:  # as manifests once were
        manifest = json.loads((folder / "manifest.json").read_text())
        for entry in manifest["files"].values():
            del entry["blake3"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert check_manifest(folder)
    (folder / "model.onnx").write_bytes(b"grapH")
    (folder / "presets" / "fiction.bin").unlink()
    (folder / "extra.so").write_bytes(b"")
    difference = compare_manifest(folder)
    assert difference == ManifestDifference(("presets/fiction.bin",), ("extra.so",), ("model.onnx",))
    with pytest.raises(ArtefactError, match=r"missing: presets/fiction.bin; not listed: extra.so; changed: model.onnx"):
        check_manifest(folder)


def test_a_longer_file_is_a_changed_file(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"graph and more")
    assert compare_manifest(folder).changed == ("model.onnx",)


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        {"model.onnx": "digest"},
        {"model.onnx": {"sha256": "x"}},
        {"a": {"sha256": "x", "blake3": 7, "size_bytes": 1}},
    ],
)
def test_a_manifest_of_another_shape_is_refused(folder: Path, files: object) -> None:
    (folder / "manifest.json").write_text(json.dumps({"schema": "prosocial.manifest/1", "files": files}))
    with pytest.raises(ArtefactError, match="should list files"):
        check_manifest(folder)


def test_no_folder_or_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="there is none"):
        check_manifest(tmp_path)
    with pytest.raises(ArtefactError, match="expected a folder"):
        write_manifest(tmp_path / "nowhere")


def test_no_difference_says_so() -> None:
    assert str(ManifestDifference()) == "no difference"
