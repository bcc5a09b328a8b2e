"""Rows labelled one by one into a JSONL file that is whole or not there; what a kill left is gone on from."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.editing.errors import InputError
from prosocial.editing.files import canonical_json, storage_errors

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
        done = _whole_lines(partial)
        for _ in done:
            on_row()
        with partial.open("a", encoding="utf-8") as stream:
            for row in rows[len(done) :]:
                done.append(label(row))
                stream.write(json.dumps(done[-1], ensure_ascii=False, allow_nan=False) + "\n")
                stream.flush()
                on_row()
        partial.replace(out)
    return done


def _whole_lines(partial: Path) -> list[Row]:
    """Return the rows of a partial file, and cut off a line that a kill left half written."""
    if not partial.is_file():
        return []
    text = partial.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        partial.write_bytes(whole)
    return [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]
