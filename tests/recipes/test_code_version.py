"""The code version follows the source files and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prosocial.recipes.code_version import code_version


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "one" / "codeversionpkg"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "sub" / "__init__.py").write_text("raise SystemExit('source is read, not run')")
    (folder / "sub" / "data.yaml").write_text("a: 1")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, "codeversionpkg", raising=False)
    return folder


@pytest.mark.parametrize("file", ["__init__.py", "sub/__init__.py", "sub/data.yaml", "sub/new.py"])
def test_any_source_or_data_file_counts(package: Path, file: str) -> None:
    before = code_version(["codeversionpkg"])
    (package / file).write_text("# changed")

    assert code_version(["codeversionpkg"]) != before


@pytest.mark.parametrize("file", ["__pycache__/x.pyc", "notes.txt"])
def test_other_files_do_not_count(package: Path, file: str) -> None:
    before = code_version(["codeversionpkg"])
    (package / file).parent.mkdir(exist_ok=True)
    (package / file).write_text("other")

    assert code_version(["codeversionpkg"]) == before


def test_order_and_repetition_do_not_matter() -> None:
    names = ["prosocial.editing.errors", "prosocial.editing.noise"]

    assert code_version(names) == code_version([*reversed(names), names[0]])
    assert code_version(names) != code_version(names[:1])


def test_another_process_gives_the_same_version() -> None:
    """Python hashes text differently in each process, and with it the order of sets."""
    names = ["prosocial.editing"]
    program = f"from prosocial.recipes.code_version import code_version; print(code_version({names!r}))"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]

    assert outputs == [code_version(names) + "\n"] * 2


def test_a_name_that_is_no_module_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"prosocial\.editing\.nothing"):
        code_version(["prosocial.editing.nothing"])
