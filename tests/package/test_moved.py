"""Every import path of the version before leads to the object of today, and says once where that is."""

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from prosocial.moved import MODULES, NAMES

NAME_ROWS = [(package, name, home) for package, names in NAMES.items() for name, home in names.items()]


def said(do: Callable[[], Any]) -> tuple[Any, list[warnings.WarningMessage]]:
    """Return what a call returns, and every warning on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return do(), caught


@pytest.mark.parametrize(("old", "new"), MODULES.items())
def test_an_old_module_is_the_new_one_and_says_so_once(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if old.startswith("verify.inspect_ai"):
        pytest.importorskip("inspect_ai")
    said(lambda: import_module(f"prosocial.{old}".rpartition(".")[0]))  # a parent that has moved has its own warning
    expected = import_module(f"prosocial.{new}")
    monkeypatch.delitem(sys.modules, f"prosocial.{old}", raising=False)
    actual, caught = said(lambda: import_module(f"prosocial.{old}"))

    assert actual is expected
    assert [warning.category for warning in caught] == [DeprecationWarning]
    assert str(caught[0].message).startswith(f"prosocial.{old} is now prosocial.{new};")


@pytest.mark.parametrize(("package", "name", "home"), NAME_ROWS)
def test_a_name_that_left_a_public_list_is_still_there_and_says_so_once(package: str, name: str, home: str) -> None:
    module = import_module(f"prosocial.{package}")
    folder, _, new_name = home.partition(":")
    new_name = new_name or name
    expected = getattr(import_module(f"prosocial.{folder}"), new_name)
    actual, caught = said(lambda: getattr(module, name))

    assert actual is expected
    assert [warning.category for warning in caught] == [DeprecationWarning]
    assert str(caught[0].message).startswith(f"prosocial.{package}.{name} is now prosocial.{folder}.{new_name};")


@pytest.mark.parametrize("old", MODULES)
def test_no_old_path_hides_what_is_there_today(old: str, root: Path) -> None:
    """The old path is no file; nor does importing it bind a module or a public name of its (moved) parent anew."""
    parent, _, leaf = old.rpartition(".")
    today = MODULES.get(parent, parent)
    places = [root.joinpath(*old.split(".")), root.joinpath(*today.split("."), leaf)]
    package = import_module(f"prosocial.{today}")

    assert [path for path in places if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()] == []
    assert leaf not in getattr(package, "__all__", ())


@pytest.mark.parametrize("package", NAMES)
def test_no_moved_name_hides_one_of_the_public_list_of_today(package: str) -> None:
    module = import_module(f"prosocial.{package}")

    assert set(NAMES[package]) & {*module.__all__, *vars(module)} == set()


def test_a_path_that_never_was_is_no_module() -> None:
    """The control: the finder takes the old paths and no others."""
    with pytest.raises(ModuleNotFoundError, match=r"prosocial\.editing\.no_such"):
        import_module("prosocial.editing.no_such")
