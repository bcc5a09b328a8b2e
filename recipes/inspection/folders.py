"""What a folder is, by the file that marks it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prosocial.core.artefacts import FOLDERS, Artefact, Mark, marks_of
from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json
from prosocial.core.gguf_files import convert_first, find_gguf
from prosocial.core.signing.model_signature import SIGNATURE_FILE, STATEMENTS_FOLDER
from prosocial.editing.edits.inspection import describe_folder
from prosocial.export.bundle_files.manifest import MANIFEST_FILE, read_manifest
from prosocial.steering.decoding.config import DECODING_FILE, DecodingConfig

from .documents import describe_document
from .runs import describe_run, describe_stage

Description = dict[str, Any]
NOT_CHECKED = "not checked: see prosocial check-signature"


def describe_any_folder(folder: Path, *, fingerprint: bool) -> Description:
    """Describe a folder by its mark; the result of a stage says so as well.

    Raises:
        ArtefactError: it holds no mark, or what it holds is broken.
    """
    stage = describe_stage(folder)
    mark = next(iter(marks_of(folder)), None)
    found = describe_run(folder) if mark is None else _described(folder, mark, fingerprint)
    gguf = find_gguf(folder)
    if found is None and stage is None and gguf is not None:
        raise ArtefactError(f"{folder} should hold an artefact, found {convert_first(gguf)}")
    if found is None and stage is None:
        looked_for = ", ".join(f"{mark.file} ({mark.kind})" for mark in FOLDERS)
        raise ArtefactError(f"{folder} should hold one of {looked_for}, or a store of stage results: it holds none")
    if found is None:
        return {"kind": str(Artefact.STAGE_RESULT), **(stage or {})}
    return found if stage is None else found | {"stage": stage}


def _described(folder: Path, mark: Mark, fingerprint: bool) -> Description:
    found = _DESCRIBERS[mark.kind](folder, fingerprint) if mark.kind in _DESCRIBERS else _marked(folder, mark)
    signed = (folder / SIGNATURE_FILE).is_file() or (folder / STATEMENTS_FOLDER).is_dir()
    return {**found, "kind": str(mark.kind)} | ({"signatures": _signatures(folder)} if signed else {})


def _marked(folder: Path, mark: Mark) -> Description:
    """Describe a folder by the document that marks it."""
    document = read_json(folder / mark.file)
    return describe_document(document, mark.kind) | {"files": _sizes(folder)}


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file that lies in the folder itself."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def _signatures(folder: Path) -> Description:
    paths = [folder / SIGNATURE_FILE, *sorted((folder / STATEMENTS_FOLDER).glob("*"))]
    names = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    return {"files": names, "verdict": NOT_CHECKED}


def _steered(folder: Path, fingerprint: bool) -> Description:
    held = describe_folder(folder, fingerprint=fingerprint)
    return {"kind": held.pop("kind"), **_limits(DecodingConfig.read(folder)), **held}


def _bundle(folder: Path, fingerprint: bool) -> Description:
    manifest = read_manifest(folder)
    files = manifest["files"]
    facts = {name: value for name, value in manifest.items() if name not in ("schema", "kind", "files")}
    return {
        "kind": str(Artefact.BUNDLE),
        "bundle_kind": manifest.get("kind"),
        **facts,
        "n_files": len(files),
        "size_bytes": sum(entry["size_bytes"] for entry in files.values()),
        **(_limits(DecodingConfig.read(folder)) if (folder / DECODING_FILE).is_file() else {}),
        "manifest": f"{MANIFEST_FILE} was read, not checked",
    }


def _limits(config: DecodingConfig) -> Description:
    """Return what inputs may ask of a steered model."""
    open_ = zip(config.categories, config.ceiling_mask(), strict=True)
    return {
        "attributes": config.attributes,
        "categories": config.categories,
        "harm_threshold": config.harm_threshold,
        "threshold_ceiling": config.threshold_ceiling,
        "may_be_allowed": [name for name, is_open in open_ if is_open],
        "safety_configs": sorted(config.safety_configs),
    }


def _edited(folder: Path, fingerprint: bool) -> Description:
    return describe_folder(folder, fingerprint=fingerprint)


_DESCRIBERS: Mapping[Artefact, Callable[[Path, bool], Description]] = {
    Artefact.VECTOR: _edited,
    Artefact.ADAPTER: _edited,
    Artefact.CHECKPOINT: _edited,
    Artefact.STEERED: _steered,
    Artefact.BUNDLE: _bundle,
}
