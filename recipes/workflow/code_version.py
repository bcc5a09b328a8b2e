"""The code version of a stage: a digest of all definitions that its function can reach.

Starting from the function, every name that a definition uses is followed to its own definition, through imports (also
those inside functions) and through the public lists of packages. The analysis is static and over-approximates: a class
counts as a whole, and so does a module that is used as a value; if any name of a module counts, so do its top-level
calls and loops, and the data files and native sources in its folder. Comments, docstrings, formatting and the
annotations of functions do not count.
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

Place = tuple[Path, str]  # a file and a name in it; `*` for all names, empty for statements that bind none
Row = tuple[str, str]  # a label and a digest


def code_versions(functions: Mapping[str, Callable[..., Any]], tree: SourceTree | None = None) -> dict[str, str]:
    """Return the code version of each function: the hex SHA-256 of all code that it can reach.

    It does not depend on the folder that the package is installed in.

    Args:
        functions: functions by any name; for a function from outside the package, its file counts too.
        tree: the sources; None for the installed ones.
    """
    reach = Reach(tree or SourceTree())
    with _collector_paused():
        rows = {key: [_qualified_name(each), sorted(reach.rows(each))] for key, each in functions.items()}
    return {key: hashlib.sha256(canonical_json(row).encode()).hexdigest() for key, row in rows.items()}


class Reach:
    """Collects the definitions that functions can reach; each file is parsed once."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self._read: dict[Place, tuple[set[Row], set[Place]]] = {}

    def rows(self, function: Callable[..., Any]) -> set[Row]:
        """Return the label and digest of every definition and data file that a function can reach."""
        file, name = self._file(function), _qualified_name(function).partition(".")[0]
        if file is None:
            return {(name, _bytecode(getattr(function, "__code__", None)))}
        rows: set[Row] = set()
        seen, pending = {(file, name)}, [(file, name)]
        while pending:
            own, following = self._at(pending.pop())
            rows |= own
            pending += following - seen
            seen |= following
        return rows

    def _at(self, place: Place) -> tuple[set[Row], set[Place]]:
        """Return the rows of a place itself, and the places that its definitions use."""
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
        for each in definition.imports:
            yield from self._resolved(each, file)
        if definition.imports_package:
            yield from ((path, EVERYTHING) for path in file.parent.glob("*.py"))

    def _resolved(self, reference: Import, file: Path) -> Iterator[Place]:
        """Yield the place that an import refers to: a name of a module or a module; nothing for other packages."""
        path = self._tree.imported(reference, by=file)
        if path is not None and (
            reference.name == EVERYTHING or reference.name in self._tree.definitions(path).by_name
        ):
            yield path, reference.name
            return
        submodule = Import(reference.level, f"{reference.module}.{reference.name}".lstrip("."))
        inner = self._tree.imported(submodule, by=file)
        if inner is not None or path is not None:
            yield inner or path or file, EVERYTHING

    def _file(self, function: Callable[..., Any]) -> Path | None:
        """Return the file that a function is defined in; None if there is none, as in an interactive session."""
        module = getattr(function, "__module__", None) or ""
        outside = getattr(sys.modules.get(module), "__file__", None)
        return self._tree.file(module) or (Path(outside) if outside else None)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the garbage collector: syntax trees are many live objects, which it would scan repeatedly."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _loaded(file: Path) -> Iterator[Place]:
    """Yield the places of code that runs on import: statements that bind no name, in the file and in its package."""
    yield file, ""
    package = file.parent / INIT if file.name != INIT else file.parent.parent / INIT
    if package.is_file():
        yield package, ""


def _qualified_name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _bytecode(code: object) -> str:
    """Return the bytecode of a function without a source file, as text."""
    if not isinstance(code, CodeType):
        return repr(code)
    return repr((code.co_code, code.co_names, [_bytecode(constant) for constant in code.co_consts]))
