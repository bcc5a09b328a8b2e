"""Rows labelled one by one into a JSONL file that is whole or not there; what a kill left is gone on from."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json, storage_errors

Row = dict[str, Any]


def label_rows(
    rows: Sequence[Row],
    label: Callable[[Row], Row],
    *,
    out: Path,
    made_with: Mapping[str, Any],
    on_row: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Write `label(row)` of every row to `out` and return them.

    Args:
        rows: what is labelled.
        label: returns the labelled row; whatever it raises ends the run, and what is labelled stays for the next.
        out: a file that is not there yet.
        made_with: everything else that the labels hang on: another run takes up the rows if it has the same.
        on_row: called after every row, those of an earlier run included.

    Raises:
        InputError: `out` exists.
    """
    if out.exists():
        raise InputError(f"{out} should not exist yet: choose another name or delete it first")
    key = hashlib.sha256(canonical_json([list(rows), dict(made_with)]).encode()).hexdigest()
    partial = out.with_name(f".{out.name}.{key[:16]}.partial")
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()  # without rows, an empty file
        file = AppendedRows(partial)
        done = file.rows
        for _ in done:
            on_row()
        for row in rows[len(done) :]:
            done.append(label(row))
            file.append(done[-1])
            on_row()
        partial.replace(out)
    return done
