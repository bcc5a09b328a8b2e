"""The manifest: the digests of all files of a bundle, and the comparison of a folder with it.

The Hub and signatures identify files by SHA-256. Opening a bundle checks BLAKE3, which is about ten times as fast.

The manifest does not cover itself, `parity.json`, `README.md`, signatures (which sign the manifest's digest), and files
that a download client adds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.files import blake3_file, read_json, sha256_file, write_json

SCHEMA = "prosocial.manifest/1"
MANIFEST_FILE = "manifest.json"
NOT_COVERED = (MANIFEST_FILE, "parity.json", "README.md", ".gitattributes")
SIGNATURE_SUFFIXES = (".sig", ".sigstore")
CLIENT_FOLDERS = (".cache", ".git", "signatures")


@dataclass(frozen=True)
class ManifestDifference:
    """The difference between a folder and its manifest, as sorted relative paths (with `/`); false if there is none.

    Attributes:
        missing: listed files that do not exist.
        unlisted: existing files that are not listed.
        changed: listed files with other bytes.
    """

    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unlisted or self.changed)

    def __str__(self) -> str:
        named = (("missing", self.missing), ("not listed", self.unlisted), ("changed", self.changed))
        return "; ".join(f"{word}: {', '.join(paths)}" for word, paths in named if paths) or "no difference"


def write_manifest(folder: Path | str, *, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write `manifest.json` with the digests of all covered files of a folder, and return its content.

    Args:
        folder: folder of the bundle.
        facts: further entries of the manifest, such as `kind` and `profile`.

    Raises:
        ArtefactError: the folder does not exist.
    """
    folder = Path(folder)
    files = {name: _entry(folder / name) for name in covered_files(folder)}
    manifest = {"schema": SCHEMA, **(facts or {}), "files": files}
    write_json(folder / MANIFEST_FILE, manifest)
    return manifest


def compare_manifest(folder: Path) -> ManifestDifference:
    """Return the difference between a folder and its manifest; reads every covered file.

    Raises:
        ArtefactError: the folder or the manifest is missing, or the manifest's schema or structure differs.
    """
    return _compare(folder, read_manifest(folder))


def _compare(folder: Path, manifest: Mapping[str, Any]) -> ManifestDifference:
    listed = manifest["files"]
    actual = set(covered_files(folder))
    changed = [name for name in actual & set(listed) if not _is(folder / name, listed[name])]
    return ManifestDifference(
        missing=tuple(sorted(set(listed) - actual)),
        unlisted=tuple(sorted(actual - set(listed))),
        changed=tuple(sorted(changed)),
    )


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "blake3": blake3_file(path), "size_bytes": path.stat().st_size}


def _is(path: Path, entry: Mapping[str, Any]) -> bool:
    """Return whether a file has the size and digest of an entry; older manifests have SHA-256 only."""
    if path.stat().st_size != entry["size_bytes"]:
        return False
    is_same: bool = blake3_file(path) == entry["blake3"] if "blake3" in entry else sha256_file(path) == entry["sha256"]
    return is_same


def check_manifest(folder: Path | str) -> dict[str, Any]:
    """Return the manifest of a folder after checking that the folder matches it exactly.

    Raises:
        ArtefactError: the folder differs; the message names every missing, unlisted or changed path.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    difference = _compare(folder, manifest)
    if difference:
        raise ArtefactError(f"{folder} should match its manifest; {difference}: download or export it again")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`.

    Raises:
        ArtefactError: the file is missing, or its schema or list of files is invalid.
    """
    manifest = read_json(folder / MANIFEST_FILE, schema=SCHEMA)
    files = manifest.get("files")
    is_listed = isinstance(files, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("blake3", ""), str)
        and isinstance(entry.get("size_bytes"), int)
        for entry in files.values()
    )
    if not is_listed:
        raise ArtefactError(f"{folder / MANIFEST_FILE} should list files with sha256 and size_bytes: export it again")
    return manifest


def covered_files(folder: Path) -> list[str]:
    """Return the sorted relative paths of the files in a folder that a manifest covers.

    Raises:
        ArtefactError: the folder does not exist.
    """
    if not folder.is_dir():
        raise ArtefactError(f"expected a folder at {folder}, found none: check the path")
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        name.as_posix()
        for name in names
        if name.as_posix() not in NOT_COVERED
        and name.suffix not in SIGNATURE_SUFFIXES
        and name.parts[0] not in CLIENT_FOLDERS
    )
