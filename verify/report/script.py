"""The one script of our pages: it sorts and filters tables, and a page's policy lets no other run."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from markupsafe import Markup

SCRIPT = Path(__file__).parent / "tables.js.j2"


@cache
def page_script() -> Markup:
    """Return the script, to be put between script tags as it is."""
    return Markup(SCRIPT.read_text(encoding="utf-8"))  # our own file, no text of a report is in it


@cache
def script_policy() -> str:
    """Return the source expression of a content security policy that lets this script run (CSP 3, 2.3.1)."""
    digest = hashlib.sha256(page_script().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
