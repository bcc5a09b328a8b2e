"""What a statement about safety configs is bound to: the graph of one bundle (torch-free)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosocial.editing.errors import ArtefactError

from ..signing.envelope import Statement
from .refusal import Reason, RefusedConfig

GRAPH_FILES = "model.onnx"  # what the names of the graph's files begin with: the nodes, and the weights beside them


def graph_digests(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the BLAKE3 digests of a bundle's graph by file: what opening the bundle compares with the bytes.

    Raises:
        ArtefactError: the manifest is of a version that names none.
    """
    files = {name: entry for name, entry in manifest["files"].items() if name.startswith(GRAPH_FILES)}
    if not files or not all("blake3" in entry for entry in files.values()):
        raise ArtefactError("the manifest should name BLAKE3 digests of the graph, it does not: export it again")
    return {name: entry["blake3"] for name, entry in sorted(files.items())}


def graph_subject(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a bundle's graph as the subject of a statement."""
    return [{"name": name, "digest": {"blake3": digest}} for name, digest in graph_digests(manifest).items()]


def stated_graph(said: Statement, path: Path) -> dict[str, str]:
    """Return the graph that a statement is for.

    Raises:
        RefusedConfig: it names none.
    """
    try:
        return {each["name"]: each["digest"]["blake3"] for each in said["subject"]}
    except (KeyError, TypeError):
        raise RefusedConfig(Reason.MALFORMED, f"{path.name} should name the graph that it is for") from None
