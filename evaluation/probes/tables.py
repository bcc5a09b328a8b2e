"""Reading the rows of tables in CSV, TSV, JSON, JSONL (also compressed) and Parquet."""

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.json_text import parse_json, parse_rows

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
LARGEST_FIELD = 1 << 24  # characters; the default of the csv module is far lower


def table_files(folder: Path) -> list[Path]:
    """Return the table files of a folder and its subfolders, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(SUFFIXES))


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table, with column names in lower case; none for JSON that is not a list of objects.

    Raises:
        InputError: the file cannot be read in the format of its suffix.
    """
    try:
        rows = list(_rows(path))
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise InputError(f"{path} should be a readable table: {error}") from None
    return [{str(key).strip().lower(): value for key, value in row.items()} for row in rows]


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(path).to_pylist()
        return
    text = (gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()).decode("utf-8-sig")
    name = name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        csv.field_size_limit(LARGEST_FIELD)
        yield from csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if name.endswith(".tsv") else ",")
        return
    if name.endswith(".jsonl"):
        yield from parse_rows(text, where=str(path)).values()
        return
    values = parse_json(text, where=str(path))
    yield from (value for value in values if isinstance(value, dict)) if isinstance(values, list) else ()
