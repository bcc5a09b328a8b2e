"""The only script of the pages, which sorts and filters tables; the content security policy blocks all others."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from markupsafe import Markup

SCRIPT = Path(__file__).parent / "tables.js.j2"


@cache
def page_script() -> Markup:
    """Return the script, to be inserted unescaped between script tags."""
    return Markup(SCRIPT.read_text(encoding="utf-8"))  # safe: a file of this package, without text of a report


@cache
def page_policy(*, scripted: bool = True) -> Markup:
    """Return the content security policy of a page (CSP 3, 2.3.1): no network, and at most this package's script."""
    digest = base64.b64encode(hashlib.sha256(page_script().encode()).digest()).decode()
    allowed = f"; script-src 'sha256-{digest}'" if scripted else ""
    return Markup(f"default-src 'none'; style-src 'unsafe-inline'{allowed}")
