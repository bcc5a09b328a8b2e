"""Attributes in docstrings become rows of a table in the reference: one attribute, one line of its own."""

import re
from importlib import import_module

import pytest
from griffe import Docstring, DocstringSectionKind

FOLDERS = ("core", "editing", "steering", "training", "export", "evaluation", "verify")
CLASSES = [
    pytest.param(thing, id=f"{folder}.{name}")
    for folder in FOLDERS
    for name in import_module(f"prosocial.{folder}").__all__
    if isinstance(thing := getattr(import_module(f"prosocial.{folder}"), name), type)
]


@pytest.mark.parametrize("public", CLASSES)
def test_an_attribute_has_a_row_of_its_own(public: type) -> None:
    sections = Docstring(public.__doc__ or "").parse("google", warnings=False)
    rows = [row for section in sections if section.kind is DocstringSectionKind.attributes for row in section.value]
    names = {*getattr(public, "__annotations__", {}), *vars(public)}

    hidden = [name for row in rows for name in re.findall(r"[.;]\s(\w+):\s", row.description) if name in names]
    assert hidden == []
    assert ("Attributes:" in (public.__doc__ or "")) == bool(rows)
