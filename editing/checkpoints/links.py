"""Symbolic links in a model folder: none may lead out of it, or an edit would copy files of another folder."""

from collections.abc import Iterable
from pathlib import Path

from prosocial.core.errors import ArtefactError


def require_inside(folder: Path, paths: Iterable[str]) -> None:
    """Check that files of a folder lie in it, also where they or their parents are links.

    In a snapshot of the Hub's cache the files are links into `blobs` of the same repository, which counts as inside.

    Args:
        folder: the folder, which may be a link itself.
        paths: relative paths of files.

    Raises:
        ArtefactError: a file leads out of the folder (the message names the file and where it leads).
    """
    home = folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    for path in paths:
        target = (folder / path).resolve()
        if not any(target.is_relative_to(each) for each in homes):
            raise ArtefactError(
                f"{folder / path} should lie in its folder, it is a link to {target}: replace the link by a copy of "
                "the file, or take it out"
            )
