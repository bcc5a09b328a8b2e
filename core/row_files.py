"""Files of rows: JSONL, a JSON array, Parquet, or a data set that `datasets` saved (torch-free)."""

from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_bytes, read_jsonl
from .json_text import parse_json


def read_rows(source: Path | str) -> list[dict[str, Any]]:
    """Return the rows of a file or of a folder written by `datasets.Dataset.save_to_disk`.

    A file is JSONL, except one named `.parquet`, and one named `.json` that contains an array of objects.

    Raises:
        InputError: the source is missing, has another content, or has no rows.
    """
    source = Path(source)
    if source.is_dir():
        return _saved_rows(source)
    if source.suffix == ".parquet" and source.is_file():
        return _parquet_rows(source)
    if source.suffix == ".json" and source.is_file() and read_bytes(source).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        return _array_rows(source)
    return read_jsonl(source)


def _array_rows(path: Path) -> list[dict[str, Any]]:
    value = parse_json(read_bytes(path), where=str(path))
    if not value or not all(isinstance(row, dict) for row in value):
        raise InputError(f"{path} should hold an array of objects, at least one: it does not")
    return list(value)


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} should be a Parquet file: {_first_line(error)}") from None
    if not rows:
        raise InputError(f"{path} should hold at least one row: it holds none")
    return rows


def _saved_rows(folder: Path) -> list[dict[str, Any]]:
    from datasets import Dataset, load_from_disk

    try:
        dataset = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} should be a JSONL file or a saved data set: {_first_line(error)}") from None
    if not isinstance(dataset, Dataset) or not len(dataset):
        raise InputError(f"{folder} should hold one split with rows, found {dataset!r:.80}: save one split of it")
    return [dict(row) for row in dataset]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
