"""The examples in docstrings run, wherever they are."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "editing", "steering", "training", "export", "evaluation", "verify", "recipes", "cli")
PAIRS = [(folder, path) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
WITH_EXAMPLES = [path for _, path in PAIRS if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(path: Path) -> None:
    name = ".".join(("prosocial", *path.relative_to(ROOT).with_suffix("").parts))
    ran = doctest.testmod(importlib.import_module(name))

    assert ran.attempted > 0 and ran.failed == 0


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) > 40
