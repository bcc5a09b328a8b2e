"""Nothing that belongs to the package can be left out of it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .roots import ROOT, ROOTS, TOP

CODE_SUFFIXES = (".py", ".pyc", ".c", ".h", ".so")  # what setuptools packs, or builds, itself
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LISTING = """
import runpy, setuptools
setuptools.setup = lambda **given: print(*given["packages"], *(f"{k}={v}" for k, v in given["package_dir"].items()))
runpy.run_path("setup.py")
"""


@pytest.fixture(scope="module")
def listed() -> set[str]:
    """What setup.py tells setuptools: packages, and `prosocial.x=x` for the folders."""
    pytest.importorskip("setuptools")
    done = subprocess.run([sys.executable, "-c", LISTING], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_folder_with_code_is_a_listed_package(listed: set[str]) -> None:
    with_code = {path.parent for folder in ROOTS for path in (ROOT / folder).rglob("*.py")}
    expected = {".".join(("prosocial", *folder.relative_to(ROOT).parts)) for folder in with_code}

    places = {f"prosocial.{folder}={folder}" for folder in ROOTS}
    assert {name for name in listed if "=" not in name} == {"prosocial", *expected}
    assert {name for name in listed if "=" in name} == {f"prosocial={TOP}", *places}


@pytest.mark.parametrize("folder", [TOP, *ROOTS])
def test_every_data_file_is_of_a_kind_that_is_packed(folder: str) -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    others = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix not in CODE_SUFFIXES]

    assert [path for path in others if not any(path.match(pattern) for pattern in patterns)] == []
    assert (ROOT / folder / "py.typed").is_file()


def test_type_checkers_find_everything_under_its_import_name() -> None:
    links = {path.name: path.resolve() for path in (ROOT / ".types" / "prosocial").iterdir() if path.is_symlink()}
    beside = [path for path in (ROOT / TOP).iterdir() if path.is_file()]

    assert links == {path.name: path for path in (*beside, *(ROOT / folder for folder in ROOTS))}


def test_the_command_is_declared() -> None:
    assert PROJECT["project"]["scripts"] == {"prosocial": "prosocial.cli.main:main"}
    assert PROJECT["project"]["entry-points"]["inspect_ai"] == {"prosocial": "prosocial.evaluation.inspect_ai.registry"}


def test_every_requirement_of_the_project_is_pinned_for_work_on_it() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    chosen = [
        *PROJECT["project"]["dependencies"],
        *(one for name in ("cpu", "edit", "train", "dev") for one in extras[name]),
    ]
    wanted = {_name(text) for text in chosen} - {"prosocial"}
    pinned = dict(line.split("==") for line in _lines(ROOT / "constraints.txt"))

    assert wanted - {_name(name) for name in pinned} == set()
    assert all(re.fullmatch(r"[\w.]+", version) for version in pinned.values()), "no local versions, no paths"


def _name(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def _lines(path: Path) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]
