"""JSON is read strictly: what two parsers may read in two ways is one clear line."""

import json
from pathlib import Path

import pytest

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json, read_jsonl
from prosocial.core.json_text import MAX_NESTING, parse_json, parse_object, parse_rows

REFUSED = {
    "a key twice": ('{"a": 1, "a": 2}', "'a' occurs twice"),
    "a key twice, once escaped": ('{"a": 1, "\\u0061": 2}', "'a' occurs twice"),
    "a key twice, deep inside": ('{"a": [{"b": {"c": 1, "c": 1}}]}', "'c' occurs twice"),
    "a key twice, once with a surrogate pair": ('{"\U0001f600": 1, "\\ud83d\\ude00": 2}', "occurs twice"),
    "a key twice, once empty": ('{"": 1, "": 1}', "'' occurs twice"),
    "a key twice, in a list of objects": ('{"a": [{"b": 1}, {"b": 1, "b": 2}]}', "'b' occurs twice"),
    "a key three times": ('{"a": {"d": 1, "d": 2, "d": 3}}', "'d' occurs twice"),
    "a key twice, with a slash escaped": ('{"a/b": 1, "a\\/b": 2}', "'a/b' occurs twice"),
    "a trailing comma": ('{"a": 1,}', "Expecting property name"),
    "NaN": ('{"a": NaN}', "NaN is no JSON number"),
    "Infinity": ('{"a": [-Infinity]}', "-Infinity is no JSON number"),
    "a number that overflows": ('{"a": 1e999}', "1e999 is too large"),
    "nested too deep": ('{"a": ' + "[" * 70 + "0" + "]" * 70 + "}", "more than 64 levels"),
    "nested too deep for the parser": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "too deep"),
    "too many digits": ('{"a": ' + "9" * 5000 + "}", "4300 digits"),
    "half a character": ('{"a": "\\ud800"}', "half a character"),
    "half a character in a key": ('{"\\uDFFF": 1}', "half a character"),
    "no JSON": ("{", "Expecting property name"),
    "two values": ("{} {}", "Extra data"),
    "a NUL": ('{"a": 1}\x00', "Extra data"),
    "an array": ("[1]", "a JSON object, found list"),
    "nothing": ("", "Expecting value"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_ambiguous_json_is_one_line_from_every_reader(kind: str, tmp_path: Path) -> None:
    text, reason = REFUSED[kind]
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"good": 1}}\n{text or "x"}\n', encoding="utf-8")
    (tmp_path / "file.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtefactError, match=r"^given should hold") as refused:
        parse_object(text, where="given")
    assert reason in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 200
    with pytest.raises(ArtefactError, match=r"file\.json should hold"):
        read_json(tmp_path / "file.json")
    with pytest.raises(ArtefactError, match=r"rows\.jsonl line 2 should hold"):
        read_jsonl(path)


def test_what_is_unambiguous_is_read_as_it_stands() -> None:
    value = {"a": [1.5, -(10**18), None, True, "\U0001f600 \u2028"], "b": {"": {}}}
    assert parse_json(json.dumps(value), where="x") == value == parse_json(json.dumps(value).encode(), where="x")
    deepest = "[" * MAX_NESTING + "1" + "]" * MAX_NESTING
    assert parse_json(deepest, where="x") == json.loads(deepest)
    assert parse_json('{"time_step_limit": [0.0, Infinity]}', where="config.json", finite=False)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b", "\x0c"])
def test_rows_end_at_newlines_only(end: str, start: str, mark: str, tmp_path: Path) -> None:
    rows = [{"text": f"one{mark}two"}, {"text": "three"}]
    lines = [json.dumps(row, ensure_ascii=ord(mark) < 32) for row in rows]
    text = start + end.join([lines[0], "", " \t", lines[1], "", " "])
    (tmp_path / "rows.jsonl").write_bytes(text.encode())
    assert read_jsonl(tmp_path / "rows.jsonl") == rows == [*parse_rows(text, where="rows").values()]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_is_one_line(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes('{"text": "é"}\n'.encode(encoding))
    for read in (read_json, read_jsonl):
        with pytest.raises(ArtefactError, match="should be UTF-8 text"):
            read(tmp_path / "rows.jsonl")


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="should be a file that can be read: Is a directory"):
        read_json(tmp_path)
    with pytest.raises(ArtefactError, match="there is none"):
        read_json(tmp_path / "none.json")
    with pytest.raises(ArtefactError, match="should be a file that can be read"):
        read_json(Path("a\x00b"))
