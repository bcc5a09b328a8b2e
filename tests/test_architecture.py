"""The folders are the sentence: imports run one way and in no circle, and every public list is true."""

import ast
import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

from .roots import ROOT, ROOTS, TOP

BELOW = "moved"  # beside the root folders, in package/: the import paths of the version before
SOURCES = sorted(path for folder in ROOTS for path in (ROOT / folder).rglob("*.py"))
OTHERS = sorted(path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (level, dotted name) of every import anywhere in a file; `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                (node.level, f"{node.module}.{alias.name}" if node.module else alias.name) for alias in node.names
            )


def breaches(source: str, *, folder: str | None, depth: int = 0) -> list[str]:
    """Return what an import in a file breaks.

    Args:
        folder: the root folder that the file is in, None for a test or a benchmark.
        depth: how many packages below the root folder the file is.
    """
    found: list[str] = []
    for level, name in imported(ast.parse(source)):
        first, *rest = name.split(".")
        if level > depth + 1:
            found.append(f"a relative import leaves the folder: {'.' * level}{name}")
        if level == 0 and first in ROOTS:
            found.append(f"import prosocial.{name}, not {name}")
        if level == 0 and first == "prosocial" and folder is not None:
            target = rest[0] if rest else ""
            if target == folder:
                found.append(f"import {name} relatively: it is in the same folder")
            elif target not in (BELOW, *ROOTS[: ROOTS.index(folder)]):
                found.append(f"{folder} stands before {target or 'the whole package'}: it may not import {name}")
    return found


@pytest.mark.parametrize(
    ("source", "n_breaches"),
    [
        ("import editing", 1),
        ("from export.runtime.bundle import Bundle", 1),
        ("def f():\n    from prosocial.verify import report", 1),
        ("from prosocial.export.runtime.bundle import Bundle", 1),
        ("import prosocial.cli.main", 1),
        ("from prosocial import recipes", 1),
        ("import prosocial", 1),
        ("from ... import editing", 1),
        ("from ..runtime import session\nfrom . import axes\nfrom prosocial.editing import Checkpoint", 0),
        ("import numpy.export\nfrom torch import export", 0),
    ],
)
def test_the_rule_finds_what_breaks_it(source: str, n_breaches: int) -> None:
    """The control of the next test, for a file such as export/graph/wrapper.py."""
    assert len(breaches(source, folder="export", depth=1)) == n_breaches


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    folder, *inner, _ = path.relative_to(ROOT).parts

    assert breaches(path.read_text(encoding="utf-8"), folder=folder, depth=len(inner)) == []


def test_the_root_folders_are_all_that_there_are() -> None:
    """A folder that is in no list here would be held by no test."""
    assert sorted(path.parent.name for path in ROOT.glob("*/__init__.py")) == sorted((TOP, *ROOTS))


@pytest.mark.parametrize("path", sorted((ROOT / TOP).glob("*.py")), ids=lambda path: path.name)
def test_the_package_itself_imports_no_root_folder(path: Path) -> None:
    """Or else `import prosocial` would be a circle, and no longer quick."""
    names = [name for _, name in imported(ast.parse(path.read_text(encoding="utf-8")))]

    assert [name for name in names if name.split(".")[0] in ("prosocial", *ROOTS)] == []


def test_tests_lie_where_what_they_test_does() -> None:
    folders = {path.relative_to(ROOT / "tests").parent for path in OTHERS if path.name.startswith("test_")}
    mirrored = [folder for folder in folders if folder.parts[:1] and folder.parts[0] in ROOTS]

    assert {folder.parts[0] for folder in mirrored} == set(ROOTS)
    assert [str(folder) for folder in mirrored if not (ROOT / folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_and_benchmarks_import_the_package_by_its_name(path: Path) -> None:
    assert breaches(path.read_text(encoding="utf-8"), folder=None, depth=9) == []


def _module(path: Path) -> str:
    """Return the dotted name of a source file, without `prosocial.`; a package has its folder's name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in SOURCES}


def imported_modules(path: Path) -> set[str]:
    """Return the modules of the project that a file imports anywhere, a package's list resolved to where a name is."""
    folder = _module(path.parent / "__init__.py").split(".")
    found = set()
    for level, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        words = name.split(".")
        absolute = [*folder[: len(folder) - level + 1], *words] if level else words[1:] * (words[0] == "prosocial")
        while absolute and ".".join(absolute) not in MODULES:
            package = MODULES.get(".".join(absolute[:-1]))
            home = listed(package).get(absolute[-1]) if package and package.name == "__init__.py" else None
            absolute = absolute[:-1] + home.split(".") if home else absolute[:-1]
        found.add(".".join(absolute))
    return found - {"", _module(path)}


def listed(init: Path) -> dict[str, str]:
    """Return the public list of a package: the module, relative to the package, by name."""
    stub = init.with_suffix(".pyi")
    rows = imported(ast.parse(stub.read_text(encoding="utf-8"))) if stub.is_file() else ()
    return {name.rpartition(".")[2]: name.rpartition(".")[0] for _, name in rows}


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Return every edge that lies on a circle, as `a -> b`."""
    reached = {start: _reachable(start, edges) for start in edges}
    return sorted(f"{a} -> {b}" for a, targets in edges.items() for b in targets if a in reached.get(b, ()))


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for target in edges.get(waiting.pop(), set()) - found:
            found.add(target)
            waiting.append(target)
    return found


FILES = {name: imported_modules(path) for name, path in MODULES.items() if path.name != "__init__.py"}


def test_a_circle_is_found() -> None:
    """The control of the next two tests."""
    chain = {a: {b} for a, b in pairwise("abcd")}

    assert circles(chain) == []
    assert circles(chain | {"d": {"b"}}) == ["b -> c", "c -> d", "d -> b"]


def test_files_import_in_no_circle() -> None:
    assert sum(map(len, FILES.values())) > len(FILES), "the imports were read"
    assert circles(FILES) == []


def test_folders_import_in_no_circle() -> None:
    folders: dict[str, set[str]] = {}
    for name, targets in FILES.items():
        here = name.rpartition(".")[0]
        folders.setdefault(here, set()).update(
            (target if MODULES[target].name == "__init__.py" else target.rpartition(".")[0]) for target in targets
        )
    assert circles({here: targets - {here} for here, targets in folders.items()}) == []


def public_packages() -> list[str]:
    """Return the dotted names of packages that have a public list."""
    return [f"prosocial.{name}" for name, path in MODULES.items() if path.with_suffix(".pyi").is_file()]


@pytest.mark.parametrize("name", public_packages())
def test_a_public_list_is_true(name: str) -> None:
    """Its names are those of the stub, which type checkers read, and come from the modules that it names."""
    package = importlib.import_module(name)
    homes = listed(Path(str(package.__file__)))

    assert sorted(homes) == sorted(package.__all__)
    for public, home in homes.items():
        assert getattr(package, public) is getattr(importlib.import_module(f"{name}.{home}"), public)
        # A module of that name would stand in the name's place as soon as anybody imports it.
        assert find_spec(f"{name}.{public}") is None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


@pytest.mark.parametrize("name", ROOTS[:-2])
def test_every_root_has_a_public_list(name: str) -> None:
    assert f"prosocial.{name}" in public_packages()
