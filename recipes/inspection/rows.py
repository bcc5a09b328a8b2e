"""What the rows of a JSONL file are, by the keys of the first."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_jsonl

Rows = Sequence[Mapping[str, Any]]


class RowKind(NamedTuple):
    """A kind of rows: what every such row holds, and what is said over all of them."""

    kind: str
    keys: frozenset[str]
    facts: Callable[[Rows], dict[str, Any]] = lambda rows: {}


def describe_rows(path: Path) -> dict[str, Any]:
    """Return the kind, the number of rows and what they are.

    Raises:
        InputError: it is no JSONL. ArtefactError: its rows are of no known kind.
    """
    rows = read_jsonl(path)
    found = next((kind for kind in KINDS if kind.keys <= rows[0].keys()), None)
    if found is None:
        known = "; ".join(f"{', '.join(sorted(kind.keys))} ({kind.kind})" for kind in KINDS)
        raise ArtefactError(f"{path} should hold rows with the keys of one kind: {known}; found {[*rows[0]]!s:.80}")
    others = sum(not found.keys <= row.keys() for row in rows)
    return {"kind": found.kind, "n_rows": len(rows), **found.facts(rows)} | ({"n_other_rows": others} if others else {})


def _counted(values: Sequence[object]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, values)).items()))


def _mapping(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object of a row; an empty one where the row holds another thing, which its reader would refuse."""
    return row[key] if isinstance(row.get(key), dict) else {}


def _log(rows: Rows) -> dict[str, Any]:
    kinds = [_mapping(row, "event").get("kind") for row in rows]
    return {"events": _counted(kinds), "chain": "not checked: prosocial log check"}


def _probes(rows: Rows) -> dict[str, Any]:
    return {"kinds": _counted([row.get("kind") for row in rows])}


def _pairs(rows: Rows) -> dict[str, Any]:
    labels = [_mapping(row, "labels") for row in rows]
    names = sorted({name for row in labels for name in row})
    return {"labels": {name: _counted([row.get(name) for row in labels]) for name in names}}


def _replies(rows: Rows) -> dict[str, Any]:
    categories = [row["categories"] if isinstance(row.get("categories"), list) else [] for row in rows]
    return {
        "n_harmful": sum(map(bool, categories)),
        "categories": _counted([name for names in categories for name in names]),
    }


KINDS = (
    RowKind("audit log", frozenset({"line", "previous", "event"}), _log),
    RowKind("journal of a sweep", frozenset({"op_code"})),
    RowKind("probes", frozenset({"id", "kind"}), _probes),
    RowKind("labelled pairs", frozenset({"first", "second", "labels"}), _pairs),
    RowKind("pairs", frozenset({"first", "second"})),
    RowKind("pairs", frozenset({"chosen", "rejected"})),
    RowKind("labelled replies", frozenset({"reply", "categories"}), _replies),
    RowKind("replies", frozenset({"reply"})),
    RowKind("replies", frozenset({"prompt", "completion"})),
    RowKind("prompts", frozenset({"prompt"})),
    RowKind("prompts", frozenset({"messages"})),
    RowKind("conversations", frozenset({"conversations"})),
)
