"""What a JSON document of a known schema says, short enough to read."""

from collections.abc import Mapping
from typing import Any

from prosocial.core.artefacts import Artefact

# What is worth showing of the long ones; of all others everything is.
SHOWN: Mapping[Artefact, tuple[str, ...]] = {
    Artefact.REPORT: ("title", "headline", "facts"),
    Artefact.PARITY: ("verdict", "reference", "bundle", "n_prompts", "n_positions", "subject"),
    Artefact.SWEEP: ("trials", "front", "best", "settings"),
    Artefact.EDIT_RECORD: ("base", "terms", "arithmetic", "result"),
    Artefact.ADAPTER_RECORD: ("base_fingerprint", "vector_blake3", "coefficients", "energy", "left_out"),
}


def describe_document(document: Mapping[str, Any], kind: Artefact) -> dict[str, Any]:
    """Return the kind, the schema and what the document says; lists of objects as their number.

    >>> describe_document({"schema": "prosocial.audit/1", "verdict": "confirmed", "levels": [{}, {}]}, Artefact.AUDIT)
    {'kind': 'audit report', 'schema': 'prosocial.audit/1', 'verdict': 'confirmed', 'n_levels': 2}
    """
    keys = [key for key in SHOWN.get(kind, document) if key in document and key not in ("kind", "schema")]
    shown = dict(_short(key, document[key]) for key in keys)
    return {"kind": str(kind), "schema": document.get("schema"), **shown}


def _short(key: str, value: object) -> tuple[str, object]:
    """Return a value as it is, or the number of objects in a list; of a nested object what is plain in it."""
    if isinstance(value, dict):
        return key, {name: item for name, item in value.items() if _is_plain(item)}
    if isinstance(value, list) and not _is_plain(value):
        return f"n_{key}", len(value)
    return key, value


def _is_plain(value: object) -> bool:
    """Whether a value is a text, a number or a list of such."""
    items = value if isinstance(value, list) else [value]
    return not any(isinstance(item, dict | list) for item in items)
