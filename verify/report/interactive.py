"""The one script of interactive pages, and the policy that lets this script run and nothing else."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from markupsafe import Markup

FILE = Path(__file__).parent / "interactive.js.j2"


@cache
def script() -> Markup:
    """Return the script; it is ours, and the only text on a page that is not escaped."""
    return Markup(FILE.read_text(encoding="utf-8"))


@cache
def policy() -> str:
    """Return the content security policy: no network, no other script, not even one in a reply that got through."""
    digest = base64.b64encode(hashlib.sha256(script().encode("utf-8")).digest()).decode("ascii")
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
