"""Labels rows one by one into a JSONL file; the file appears when all are labelled, and a killed run resumes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.errors import InputError
from prosocial.core.files import alone, canonical_json, storage_errors, sync_path

Row = dict[str, Any]


def label_rows(
    rows: Sequence[Row],
    label: Callable[[Row], Row],
    *,
    out: Path,
    made_with: Mapping[str, Any],
    on_row: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Write `label(row)` of every row to `out` and return the labelled rows.

    Args:
        rows: rows to label.
        label: returns the labelled row; if it raises, the rows so far are kept for the next run.
        out: file to write; it must not exist.
        made_with: everything else that the labels depend on; a run resumes an earlier one with the same rows and
            `made_with`.
        on_row: called after every row, including those of an earlier run.

    Raises:
        InputError: `out` exists, or another process is writing it.
    """
    key = hashlib.sha256(canonical_json([list(rows), dict(made_with)]).encode()).hexdigest()
    partial = out.with_name(f".{out.name}.{key[:16]}.partial")
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out), storage_errors(out):
        if out.exists():
            raise InputError(f"{out} should not exist yet: choose another path or delete the file")
        partial.touch()  # if there are no rows, the result is an empty file
        file = AppendedRows(partial)
        done = file.rows
        for _ in done:
            on_row()
        for row in rows[len(done) :]:
            done.append(label(row))
            file.append(done[-1])
            on_row()
        sync_path(partial)
        partial.replace(out)
    return done
