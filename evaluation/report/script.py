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
def page_policy(*, scripted: bool = True) -> Markup:
    """Return a page's content security policy (CSP 3, 2.3.1): no network, and no script but ours, if any."""
    digest = base64.b64encode(hashlib.sha256(page_script().encode()).digest()).decode()
    allowed = f"; script-src 'sha256-{digest}'" if scripted else ""
    return Markup(f"default-src 'none'; style-src 'unsafe-inline'{allowed}")
