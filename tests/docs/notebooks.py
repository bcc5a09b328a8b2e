"""Runs a notebook's code in this process, in the current folder."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from .pages import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells in their order."""
    document = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def execute(notebook: Path) -> list[str]:
    """Run every code cell, one after the other, and return what each printed."""
    space: dict[str, Any] = {}
    printed = []
    for number, cell in enumerate(cells(notebook)):
        with redirect_stdout(StringIO()) as said:
            exec(compile("".join(cell["source"]), f"{notebook.name}:{number}", "exec"), space)
        printed.append(said.getvalue())
    return printed
