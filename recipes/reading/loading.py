"""Reads a recipe from YAML into one validated model; errors name the dotted path of the key (torch-free)."""

import difflib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.yaml_values import read_yaml

from .overrides import apply_overrides

Model = TypeVar("Model", bound=BaseModel)


def builtin_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _package().iterdir() if entry.name.endswith(".yaml"))


def load_recipe(source: str | Path, overrides: Sequence[str] = (), *, model: type[Model]) -> Model:
    """Read a recipe, apply overrides, and validate it against `model`.

    Args:
        source: name of a built-in recipe, or path of a YAML file.
        overrides: changes such as `gate.rank=8`, applied in order; values are YAML.
        model: pydantic model of the recipe; unknown keys are rejected where it sets `extra="forbid"`.

    Raises:
        InputError: the file does not exist or is not YAML, or it has an unknown key or a value of the wrong type.
        UnknownNameError: no built-in recipe has this name.
    """
    text = _read(str(source))
    value = read_yaml(text, where=f"recipe {source}")
    if not isinstance(value, dict):
        raise InputError(f"recipe {source} should be a mapping of keys to values, found {type(value).__name__}")
    recipe = apply_overrides(value, overrides)
    try:
        return model.model_validate(recipe)
    except ValidationError as error:
        raise InputError(f"recipe {source}: {describe(error, recipe=recipe, model=model)}") from None


def recipe_pipeline(source: str | Path, *, default: str) -> str:
    """Return the `pipeline` of a recipe without validating the rest.

    Raises:
        InputError: the file does not exist or is not YAML.
        UnknownNameError: no built-in recipe has this name.
    """
    value = read_yaml(_read(str(source)), where=f"recipe {source}")
    named = value.get("pipeline", default) if isinstance(value, dict) else default
    if not isinstance(named, str):
        raise InputError(f"recipe {source}: pipeline should be a name, found {type(named).__name__}")
    return named


def describe(error: ValidationError, *, recipe: Any, model: type[BaseModel]) -> str:
    """Return one line for a validation error: the dotted path, the expected value and the actual one."""
    first, *more = error.errors(include_url=False)
    path = _path(first["loc"], recipe)
    dotted = ".".join(map(str, path)) or "the recipe"
    if first["type"] == "extra_forbidden":
        known = sorted({name for parent in _models_at(model, path[:-1]) for name in parent.model_fields})
        line = f"unknown key {dotted}{_closest(str(path[-1]), known)}; known are {', '.join(known)}"
        if path[-1] in known:  # the key belongs to another member of a union
            line = f"{dotted} cannot be combined with the other keys of its section; known are {', '.join(known)}"
    elif first["type"] == "missing":
        line = f"{dotted} is missing: give it a value"
    elif first["type"] == "value_error":  # raised by one of our validators, whose message has the actual value
        line = f"{dotted}: {first['ctx']['error']}" if path else str(first["ctx"]["error"])
    else:
        line = f"{dotted}: {_lower(first['msg'])}, found {_shown(first['input'])}"
    return line + (f" (and {len(more)} more)" if more else "")


def _read(source: str) -> str:
    path = Path(source).expanduser()
    if source in builtin_recipes():
        return str((_package() / f"{source}.yaml").read_text(encoding="utf-8"))
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
            known = ", ".join(builtin_recipes())
            raise InputError(f"recipe {source} should be an existing file; the built-in recipes are {known}")
        raise UnknownNameError("recipe", source, builtin_recipes())
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"recipe {source} should be UTF-8 text: {error}; save it as UTF-8") from None


def _package() -> Any:
    return files("prosocial.recipes")


def _path(location: tuple[int | str, ...], recipe: Any) -> tuple[int | str, ...]:
    """Return pydantic's location without the names of union members, which are not keys of the recipe."""
    path: list[int | str] = []
    place = recipe
    for depth, part in enumerate(location):
        inside = (isinstance(place, dict) and part in place) or (isinstance(place, list) and isinstance(part, int))
        if inside:
            place = place[part]
        if inside or depth == len(location) - 1:
            path.append(part)
    return tuple(path)


def _models_at(model: type[BaseModel], path: tuple[int | str, ...]) -> set[type[BaseModel]]:
    """Return the models that are possible at a path."""
    here = {model}
    for part in path:
        if isinstance(part, str):
            fields = [parent.model_fields[part] for parent in here if part in parent.model_fields]
            here = {inner for field in fields for inner in _models_in(field.annotation)} or here
    return here


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _closest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(value: Any) -> str:
    """Return the beginning of a value, or only the type of one that has parts."""
    return f"{value!r:.80}" if isinstance(value, str | int | float | None) else type(value).__name__


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
