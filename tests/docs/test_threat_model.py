"""Every promise of the page on trust has a row in the threat model; every test that a row names exists, and attacks."""

import ast
import importlib
import math
import re
from functools import cache, reduce
from pathlib import Path

import pytest

from .pages import ROOT

TRUST, MODEL = (ROOT / "docs" / name for name in ("trust.md", "threat-model.md"))


def promises() -> list[str]:
    section = TRUST.read_text(encoding="utf-8").partition("## What is promised")[2].partition("\n## ")[0]
    return re.findall(r"^- `([a-z-]+)`:", section, re.MULTILINE)


def rows() -> dict[str, list[str]]:
    """The tests of each row of the table, by promise."""
    section = MODEL.read_text(encoding="utf-8").partition("## Promise, mechanism, test")[2].partition("\n## ")[0]
    found: dict[str, list[str]] = {}
    for name, _, tests in re.findall(r"^\| `([a-z-]+)` \|(.*)\|(.*)\|$", section, re.MULTILINE):
        assert name not in found, f"{name} has two rows"
        found[name] = re.findall(r"`([^`]+)`", tests)
    return found


@cache
def names_in(path: Path) -> frozenset[str]:
    """The tests of a file, with their class, as pytest names them."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names |= {f"{prefix}{each.name}" for each in inner if isinstance(each, ast.FunctionDef)}
    return frozenset(names)


def test_every_promise_has_a_row_and_every_row_a_promise() -> None:
    stated = promises()
    assert len(stated) >= 30 and len(set(stated)) == len(stated)
    assert set(stated) == set(rows())


def test_every_test_that_the_threat_model_names_exists() -> None:
    for promise, tests in rows().items():
        assert tests, f"{promise} names no test"
        for test in tests:
            path, _, name = test.partition("::")
            assert (ROOT / path).is_file(), f"{promise}: {path}"
            assert name in names_in(ROOT / path), f"{promise}: {test}"


FEWEST = 20
COUNTED = [
    pytest.param(tests.replace("`", "").split(), int(n), id=kind)
    for kind, tests, n in re.findall(
        r"^\| ([^`|]+) \| (`[^|]+`) \| (\d+) \|$", MODEL.read_text(encoding="utf-8"), re.MULTILINE
    )
]


def n_attacks(name: str) -> int:
    """Return the number of rows of a table, or of cases of a test, from the file that holds it."""
    path, *names = name.split("::")
    package = __package__.partition(".docs")[0].removesuffix("tests")
    module = importlib.import_module(package + path.removesuffix(".py").replace("/", "."))
    item = reduce(getattr, names, module)
    if not callable(item):
        return len(item)
    marks = [mark for mark in getattr(item, "pytestmark", ()) if mark.name == "parametrize"]
    return math.prod(len(list(mark.args[1])) for mark in marks)


@pytest.mark.parametrize(("tests", "n_stated"), COUNTED)
def test_each_kind_of_attack_has_as_many_as_stated(tests: list[str], n_stated: int) -> None:
    assert sum(map(n_attacks, tests)) >= n_stated >= FEWEST


def test_every_kind_is_counted() -> None:
    assert len(COUNTED) >= 22
    assert all((ROOT / test.partition("::")[0]).is_file() for case in COUNTED for test in case.values[0])
