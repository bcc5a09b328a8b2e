"""Secrets in text: what has the form of one is named by its kind, and replaced before a text is shown or stored."""

import base64
import html
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

SECRETS = {
    "a Hugging Face token": r"hf_[A-Za-z0-9]{30,}",
    "an Anthropic key": r"sk-ant-[A-Za-z0-9_-]{20,}",
    "an OpenAI key": r"\bsk-(?:proj-)?[A-Za-z0-9_-]{32,}",
    "a GitHub token": r"\b(?:gh[opsru]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,})",
    "an AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": r"\bAIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>]*:[^\s/@\"'<>]+@",
}
MARKS = ("hf_", "sk-", "gh", "github_pat_", "AKIA", "ASIA", "AIza", "xox", "-----BEGIN", "://")
_SECRETS = re.compile("|".join(f"(?P<s{at}>{pattern})" for at, pattern in enumerate(SECRETS.values())), re.ASCII)
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_NAMED = (
    r"(?:(?:access|auth|api|hf|refresh|id|security)[_-]?token|\btoken|api[_-]?key|secret|password|passwd|signature|"
    r"credential|\bsig)"
)
# What error texts and addresses hold beside the forms above: a header, a parameter, a user name that is a token.
_SHOWN = re.compile(
    r"(?P<bearer>\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}"
    rf"|(?P<key>[\w-]*{_NAMED}=|[\"'][\w-]*{_NAMED}[\"']\s*:\s*[\"']|\b(?:authorization|(?:x-)?api-key)\s*:\s*(?:basic\s+|bearer\s+)?)"
    r"(?!\[|(?:bearer|basic)\s)[^\s\"'&,;<>]{3,}"
    r"|(?P<user>\b[a-z][a-z0-9+.-]{1,20}://)[^\s/@\"'<>]+@"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.IGNORECASE | re.DOTALL,
)


def secrets_in(text: str) -> list[str]:
    """Return the kinds of secrets in a text, never the secrets themselves.

    Escaped characters are read as what they stand for (`\\u005f`, `%5F`, `&#95;`), and NULs between characters
    are skipped, as UTF-16 has them.

    Examples:
        >>> secrets_in("-----BEGIN PRIVATE KEY-----")
        ['a private key']
    """
    kinds = list(SECRETS)
    indices = {int(str(match.lastgroup)[1:]) for each in _readings(text) for match in _SECRETS.finditer(each)}
    return [kinds[at] for at in sorted(indices)]


def redact(text: str, known: Iterable[str | None] = ()) -> str:
    """Return a text with every secret replaced by its kind in brackets.

    Replaced are the forms of `SECRETS`, values after words such as `token=` and `Bearer`, user names and passwords in
    addresses, and `known` secrets of any form, also percent-encoded and in base64.

    Examples:
        >>> redact("401 for https://ada:word@host/v1?token=abcdef")
        '401 for https://[redacted]@host/v1?token=[redacted]'
    """
    for secret in known:
        for form in _forms(secret) if secret else ():
            text = text.replace(form, "[redacted]")
    text = _SHOWN.sub(_shown, text)
    return _SECRETS.sub(lambda match: f"[{list(SECRETS)[int(str(match.lastgroup)[1:])]}]", text)


def _shown(match: re.Match[str]) -> str:
    start = match["bearer"] or match["key"] or match["user"] or ""
    return f"{start}[redacted]{'@' if match['user'] else ''}"


def _forms(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}


def _readings(text: str) -> Iterator[str]:
    yield text
    if "\0" in text:
        yield text.replace("\0", "")
    if "\\" in text:
        yield _ESCAPED.sub(lambda match: chr(int(match[1] or match[2], 16)), text).replace("\\/", "/")
    if "%" in text:
        yield unquote(text)
    if "&" in text:
        yield html.unescape(text)
