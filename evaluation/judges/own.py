"""A user-defined judge: a class in a module or in a Python file."""

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from prosocial.core.errors import InputError

FORMS = ("module:Class", "path/to/file.py:Class")


def own_judge(name: str, *, methods: Sequence[str] = ("judge",)) -> Any:
    """Return an instance of the class `module:Class` or `path/to/file.py:Class`; its module is executed.

    Args:
        name: the class, in one of these two forms.
        methods: methods it must have, besides the string attributes `name` and `version`.

    Raises:
        InputError: there is no such file, module or class, its constructor needs arguments, or it lacks an attribute.
    """
    source, _, class_name = name.rpartition(":")
    module = _module(source, judge=name)
    own_class = getattr(module, class_name, None)
    if not isinstance(own_class, type):
        there = [key for key, value in vars(module).items() if isinstance(value, type) and not key.startswith("_")]
        listed = ", ".join(there) or "none"
        raise InputError(f"judge {name}: {source} should have a class {class_name!r}, found {listed}")
    try:
        signature(own_class).bind()
    except TypeError as error:
        raise InputError(f"judge {name} should have a constructor without required arguments: {error}") from None
    judge = own_class()
    lacking = [text for text in ("name", "version") if not isinstance(getattr(judge, text, None), str)]
    lacking += [f"{method}()" for method in methods if not callable(getattr(judge, method, None))]
    if lacking:
        wanted = ", ".join(f"{method}()" for method in methods)
        raise InputError(
            f"judge {name} should have name and version (strings) and {wanted}; it lacks {', '.join(lacking)}"
        )
    return judge


def own_source(name: str) -> Path | None:
    """Return the file of the class `module:Class` or `path/to/file.py:Class`, without executing it.

    None if it does not exist or has no file.
    """
    source, colon, _ = name.rpartition(":")
    if source.endswith(".py"):
        return Path(source).expanduser()
    spec = find_spec(source) if colon and _is_module_name(source) else None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _module(source: str, *, judge: str) -> ModuleType:
    if not source.endswith(".py") and not _is_module_name(source):
        raise InputError(f"judge {judge} should be {' or '.join(FORMS)}, found {source!r} before the colon")
    try:
        return _run_file(Path(source).expanduser()) if source.endswith(".py") else importlib.import_module(source)
    except (ImportError, SyntaxError) as error:
        raise InputError(f"judge {judge} should be {' or '.join(FORMS)}; {source} does not import: {error}") from None


def _is_module_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ImportError(f"there is no file at {path}")
    spec = spec_from_file_location(f"prosocial_judge_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # a file that ends in .py has both
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module
