"""What a version offers by name: import paths, commands with their options, keys of recipes."""

import ast
import importlib
import pkgutil
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOTTED = re.compile(r"\bprosocial(?:\.[A-Za-z_]\w*)+")


def imports() -> dict[str, dict[str, str]]:
    """Return the names that people may import, by module; a module with none is imported itself.

    Beside each name stands the first module that gives the same object: an exception that two places name must stay
    one class.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for module, name in (*public_lists(), *documented(), *entry_points()):
        names[module] |= {name} - {""}
    modules = sorted(names)
    return {module: {name: _first(name, module, names) for name in sorted(names[module])} for module in modules}


def _first(name: str, module: str, names: Mapping[str, set[str]]) -> str:
    actual = getattr(importlib.import_module(module), name)
    others = (other for other in sorted(names) if name in names[other])
    return next(other for other in others if getattr(importlib.import_module(other), name) is actual)


def public_lists() -> Iterator[tuple[str, str]]:
    """Yield what the `__all__` of every package names."""
    import prosocial  # a namespace: it has no file, and no stub

    for found in pkgutil.walk_packages(prosocial.__path__, "prosocial."):
        if found.ispkg:
            for name in getattr(importlib.import_module(found.name), "__all__", ()):
                yield found.name, name


def documented() -> Iterator[tuple[str, str]]:
    """Yield what README and the pages import or name."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text(encoding="utf-8")
        for dotted in DOTTED.findall(text):
            yield from _resolved(dotted)
        for block in PYTHON_BLOCK.findall(text):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("prosocial"):
                    yield from ((str(node.module), alias.name) for alias in node.names)


def entry_points() -> Iterator[tuple[str, str]]:
    """Yield what the installed package names to the shell and to other packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for group in (project["scripts"], *project["entry-points"].values()):
        for target in group.values():
            module, _, name = target.partition(":")
            yield module, name


def _resolved(dotted: str) -> Iterator[tuple[str, str]]:
    """Yield module and name of a dotted path; nothing for one that is a schema or a logger."""
    parts = dotted.split(".")
    while len(parts) > 1:
        module, rest = ".".join(parts), dotted.split(".")[len(parts) :]
        if _is_module(module):
            if not rest or hasattr(importlib.import_module(module), rest[0]):
                yield module, rest[0] if rest else ""
            return
        parts.pop()


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module, not a package
        return False


def commands() -> dict[str, dict[str, Literal["flag", "value"]]]:
    """Return the options of every command, by its words; "" is the program itself."""
    from typer.main import get_command

    from prosocial.cli.main import app

    return dict(_walk((), get_command(app)))


def _walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, dict[str, Literal["flag", "value"]]]]:
    yield (
        " ".join(words),
        {
            name: "flag" if option.is_flag else "value"
            for option in command.params
            if option.param_type_name == "option"
            for name in (*option.opts, *option.secondary_opts)
            if name != "--help"
        },
    )
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk((*words, name), child)


def recipe_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted keys of a recipe that hold values; `*` stands for a name or a place in a list."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            continue  # it says which schema this is
        keys += _keys_at(field.annotation, f"{prefix}{name}")
    return sorted(set(keys))


def _keys_at(annotation: Any, path: str) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from recipe_keys(annotation, f"{path}.")
        return
    inner = get_args(annotation) if get_origin(annotation) is not Literal else ()
    listed = get_origin(annotation) in (dict, list, tuple)
    sections = [each for each in inner if any(key != path for key in _keys_at(each, path))]
    for each in sections:
        yield from _keys_at(each, f"{path}.*" if listed else path)
    if not sections or (not listed and len(sections) < len([each for each in inner if each is not type(None)])):
        yield path
