"""Loading the HTML templates of reports: autoescaped, strict about undefined values, with a shared style sheet."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from prosocial.core.terminal import printable


@cache
def load_template(path: Path) -> Template:
    """Return a template; it may include templates of its own folder and of the report, such as `style.html.j2`."""
    environment = Environment(
        loader=FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coordinate"] = lambda value: f"{value:.2f}".rstrip("0").rstrip(".")
    return environment.get_template(path.name)


def _printable(value: Any) -> Any:
    """Return a text without control characters, and anything else as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
