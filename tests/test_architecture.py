"""The folders are the sentence: imports run one way, and every public list is true."""

import ast
import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("editing", "export", "verify", "recipes", "cli")  # a folder may import itself and what stands before it
SOURCES = sorted(path for folder in ORDER for path in (ROOT / folder).rglob("*.py"))
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
        if level == 0 and first in ORDER:
            found.append(f"import prosocial.{name}, not {name}")
        if level == 0 and first == "prosocial" and folder is not None:
            target = rest[0] if rest else ""
            if target == folder:
                found.append(f"import {name} relatively: it is in the same folder")
            elif target not in ORDER[: ORDER.index(folder)]:
                found.append(f"{folder} stands before {target or 'the whole package'}: it may not import {name}")
    return found


@pytest.mark.parametrize(
    ("source", "n_breaches"),
    [
        ("import editing", 1),
        ("from export.bundle import Bundle", 1),
        ("def f():\n    from prosocial.verify import report", 1),
        ("from prosocial.export.runtime.bundle import Bundle", 1),
        ("import prosocial.cli.main", 1),
        ("from prosocial import recipes", 1),
        ("import prosocial", 1),
        ("from ... import editing", 1),
        ("from ..errors import InputError\nfrom . import files\nfrom prosocial.editing import Checkpoint", 0),
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


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_and_benchmarks_import_the_package_by_its_name(path: Path) -> None:
    assert breaches(path.read_text(encoding="utf-8"), folder=None, depth=9) == []


def _dotted(folder: Path) -> str:
    return ".".join(("prosocial", *folder.relative_to(ROOT).parts))


def public_packages() -> list[str]:
    """Return the dotted names of packages whose `__init__` is more than a docstring."""
    inits = [path for path in SOURCES if path.name == "__init__.py"]
    return [_dotted(path.parent) for path in inits if len(ast.parse(path.read_text(encoding="utf-8")).body) > 1]


@pytest.mark.parametrize("name", public_packages())
def test_a_public_list_is_true(name: str) -> None:
    package = importlib.import_module(name)
    listed = package.__all__

    assert len(set(listed)) == len(listed)
    assert [public for public in listed if getattr(package, public, None) is None] == []
    # A module of that name would stand in the function's place as soon as anybody imports it.
    assert [public for public in listed if find_spec(f"{name}.{public}")] == []
    with pytest.raises(AttributeError, match="no attribute"):
        _ = package.no_such_name


@pytest.mark.parametrize("name", public_packages())
def test_what_a_type_checker_sees_of_a_package_is_what_it_gives(name: str) -> None:
    """Names imported under TYPE_CHECKING are the listed ones, and come from the module that the lazy list names."""
    package = importlib.import_module(name)
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    shown = {
        alias.name: f"{name}.{node.module}"
        for block in blocks
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    if not blocks:
        pytest.skip("this package shows type checkers nothing")

    assert set(shown) == set(package.__all__)
    for public, home in shown.items():
        assert getattr(package, public) is getattr(importlib.import_module(home), public)
