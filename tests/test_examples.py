"""The examples in docstrings run, wherever they are."""

import doctest
import importlib
from pathlib import Path

import pytest

from .roots import ROOT, ROOTS, TOP

PATHS = [path for folder in (TOP, *ROOTS) for path in sorted((ROOT / folder).rglob("*.py"))]
WITH_EXAMPLES = [path for path in PATHS if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(path: Path) -> None:
    name = ".".join(("prosocial", *path.relative_to(ROOT).with_suffix("").parts)).replace(f".{TOP}.", ".")
    ran = doctest.testmod(importlib.import_module(name))

    assert ran.attempted > 0 and ran.failed == 0


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) > 40
