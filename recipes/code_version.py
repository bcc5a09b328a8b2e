"""The version of the code that makes an artefact: a digest of its source files, found without running them."""

import hashlib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from prosocial.editing.files import canonical_json, sha256_file

SOURCE_SUFFIXES = (".py", ".yaml", ".j2", ".json")


def code_version(modules: Iterable[str]) -> str:
    """Return the hex SHA-256 over the source files of modules and packages, independent of order and of place.

    Args:
        modules: dotted names. A package stands for every source and data file below it, a module for its one file.

    Raises:
        ModuleNotFoundError: a name is no module (a mistake in the stage, not in what the user gave).
    """
    rows: set[tuple[str, str]] = set()
    for name in modules:
        rows |= {(file, sha256_file(path)) for file, path in _source_files(name)}
    return hashlib.sha256(canonical_json(sorted(rows)).encode()).hexdigest()


def _source_files(name: str) -> list[tuple[str, Path]]:
    """Return (name that does not depend on where the package is installed, path) of each file."""
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"a stage's code version names the module {name}: there is none", name=name)
    if spec.submodule_search_locations is None:
        path = Path(str(spec.origin))
        return [(name.replace(".", "/") + path.suffix, path)]
    found = []
    for folder in map(Path, spec.submodule_search_locations):
        for path in sorted(folder.rglob("*")):
            if path.suffix in SOURCE_SUFFIXES and path.is_file():
                found.append((f"{name.replace('.', '/')}/{path.relative_to(folder).as_posix()}", path))
    return found
