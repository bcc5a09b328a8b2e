"""Writes docs/reference/recipe.md: every field of a recipe with its type, default and meaning, from the settings.

Run it after a change of a setting: `python .ci/write_recipe_page.py`; a test compares the page with the settings.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from griffe import Docstring, DocstringSectionKind
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prosocial.recipes.cosalign.schema import CosalignRecipe
from prosocial.recipes.steering.schema import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "recipe.md"
HEAD = """# The fields of a recipe

Generated from the settings by `.ci/write_recipe_page.py`. A recipe is a YAML file; a key that is not listed here is an
error. `prosocial run RECIPE --set KEY=VALUE` changes one field, such as `--set gate.steps=2000`.

Units: durations are in optimizer steps, lengths in tokens, shares and risks between 0 and 1, unless the text says
otherwise. Where the type is a section, its fields have a table of their own.
"""
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def page() -> str:
    """Return the page in Markdown."""
    parts = [HEAD]
    for title, recipe in (("A steering recipe", Recipe), ("A CoSAlign recipe (`pipeline: cosalign`)", CosalignRecipe)):
        parts += [f"## {title}\n", *_table(recipe), *_sections(recipe, "")]
    return "\n".join(parts) + "\n"


def _sections(model: type[BaseModel], path: str) -> Iterator[str]:
    """Yield the tables of the settings that a model contains, each under its dotted key."""
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            key = f"{path}{name}"
            yield f"### `{key}`: {inner.__name__}\n"
            yield f"{_summary(inner)}\n"
            yield from _table(inner)
            yield from _sections(inner, f"{key}.")


def _table(model: type[BaseModel]) -> Iterator[str]:
    meanings = descriptions(model)
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        if not _deprecated(model, name):
            cells = (f"`{name}`", f"`{_type(field)}`", _default(field), meanings.get(name, ""))
            yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
    yield ""


def _deprecated(model: type[BaseModel], name: str) -> bool:
    """Whether a recipe of today rejects or ignores the field."""
    return name in getattr(model, "WITHOUT_EFFECT", {})


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a model and its bases say about each field; its own word counts first."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        for section in Docstring(inspect.getdoc(parent) or "").parse("google", warnings=False):
            if section.kind is DocstringSectionKind.attributes:
                found |= {each.name: " ".join(each.description.split()) for each in section.value}
    nested = {n: _summary(inner[0]) for n, f in model.model_fields.items() if (inner := _models(f.annotation))}
    described = {name: field.description for name, field in model.model_fields.items() if field.description}
    return nested | found | described


def _summary(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _type(field: FieldInfo) -> str:
    bounds = {key: getattr(item, key) for item in field.metadata for key in BOUNDS if hasattr(item, key)}
    if "gt" in bounds and bounds.get("ge", bounds["gt"]) <= bounds["gt"]:
        bounds.pop("ge", None)  # a subclass that is stricter
    shown = [
        f"{BOUNDS[key]} {bound:,}" if isinstance(bound, int) else f"{BOUNDS[key]} {bound:g}"
        for key, bound in bounds.items()
    ]
    return " ".join((_name(field.annotation), *shown))


def _name(annotation: Any) -> str:
    """Return a type as a reader of YAML knows it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is Annotated:
        return _name(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys("null" if part is NoneType else _name(part) for part in inner))
    if origin in (list, tuple):
        return f"list of {_name(inner[0])}"
    if origin is dict:
        return f"mapping of {_name(inner[0])} to {_name(inner[1])}"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}
    return names.get(annotation, "section" if _models(annotation) else str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or (
        isinstance(value, tuple) and any(isinstance(each, BaseModel) for each in value)
    ):
        return "its fields' defaults"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{}" if not value else "{" + ", ".join(value) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    plain = {None: "null", True: "true", False: "false"}
    text = plain.get(value) if value is None or isinstance(value, bool) else None
    return text or re.sub(r"\s+", " ", f"{value!r}" if value == "" else str(value))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit()
