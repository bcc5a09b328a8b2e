"""The version of the code that makes an artefact: a digest of all definitions that its function can reach.

From the function on, every name that a definition uses is followed to where it is defined: over imports, those inside
functions too, and over the public lists of packages. Where it is not clear what is meant, more is taken, never less: a
class counts as a whole, and so does a module that is used as a value; a module's calls and loops count
with any of its names, and the data files and native sources beside it too. Comments, docstrings, layout and
the annotations of functions do not count. Nothing that is read is run.
"""

import gc
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

from prosocial.core.files import canonical_json

from .definitions import EVERYTHING, Definition, Import
from .source_tree import INIT, SourceTree

Place = tuple[Path, str]  # a file, and a name in it: `*` for all of them, empty for what binds none
Row = tuple[str, str]  # a label, and a digest


def code_versions(functions: Mapping[str, Callable[..., Any]], tree: SourceTree | None = None) -> dict[str, str]:
    """Return for each function the hex SHA-256 of all code that it can reach, independent of where the package lies.

    Args:
        functions: by any name. Of one from outside the package its own file counts too.
        tree: the sources; None: those that are installed.
    """
    reach = Reach(tree or SourceTree())
    with _collector_paused():
        rows = {key: [_qualified_name(each), sorted(reach.rows(each))] for key, each in functions.items()}
    return {key: hashlib.sha256(canonical_json(found).encode()).hexdigest() for key, found in rows.items()}


class Reach:
    """What functions can reach, in one reading of the sources."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self._read: dict[Place, tuple[set[Row], set[Place]]] = {}

    def rows(self, function: Callable[..., Any]) -> set[Row]:
        """Return label and digest of every definition and data file that a function can reach."""
        file, name = self._file(function), _qualified_name(function).partition(".")[0]
        if file is None:
            return {(name, _bytecode(getattr(function, "__code__", None)))}
        rows: set[Row] = set()
        seen, to_do = {(file, name)}, [(file, name)]
        while to_do:
            found, following = self._at(to_do.pop())
            rows |= found
            to_do += following - seen
            seen |= following
        return rows

    def _at(self, place: Place) -> tuple[set[Row], set[Place]]:
        """Return what a place adds to the version, and where it leads."""
        if place not in self._read:
            file, name = place
            definitions = list(self._tree.definitions(file).named(name))
            label = f"{self._tree.label(file)}:{name}"
            rows = {(label, definition.digest) for definition in definitions}
            following = {used for definition in definitions for used in self._used(definition, file)}
            self._read[place] = rows | self._tree.data(file.parent), following | set(_loaded(file))
        return self._read[place]

    def _used(self, definition: Definition, file: Path) -> Iterator[Place]:
        here = self._tree.definitions(file)
        yield from ((file, name) for name in definition.names if name in here.by_name)
        for found in definition.imports:
            yield from self._meant(found, file)
        if definition.imports_package:
            yield from ((path, EVERYTHING) for path in file.parent.glob("*.py"))

    def _meant(self, found: Import, file: Path) -> Iterator[Place]:
        """Yield what an import stands for: a name of a module, a module as a whole, or nothing of ours."""
        path = self._tree.imported(found, by=file)
        if path is not None and (found.name == EVERYTHING or found.name in self._tree.definitions(path).by_name):
            yield path, found.name
            return
        inner = self._tree.imported(Import(found.level, f"{found.module}.{found.name}".lstrip(".")), by=file)
        if inner is not None or path is not None:
            yield inner or path or file, EVERYTHING

    def _file(self, function: Callable[..., Any]) -> Path | None:
        """Return the file that a function is defined in; None where there is none, as for what is typed at a prompt."""
        module = getattr(function, "__module__", None) or ""
        found = getattr(sys.modules.get(module), "__file__", None)
        return self._tree.file(module) or (Path(found) if found else None)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Syntax trees are many objects and no garbage, and the collector would look through them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _loaded(file: Path) -> Iterator[Place]:
    """Yield what runs when a file is imported: its statements that bind no name, and those of its packages."""
    yield file, ""
    package = file.parent / INIT if file.name != INIT else file.parent.parent / INIT
    if package.is_file():
        yield package, ""


def _qualified_name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _bytecode(code: object) -> str:
    """Return what a function without a source file does."""
    if not isinstance(code, CodeType):
        return repr(code)
    return repr((code.co_code, code.co_names, [_bytecode(constant) for constant in code.co_consts]))
