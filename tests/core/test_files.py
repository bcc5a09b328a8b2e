"""Files are whole or not there."""

import errno
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

from prosocial.core import files
from prosocial.core.errors import ArtefactError, InputError, StorageError


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), files.new_folder(out) as aside:
        (aside / "half").write_text("x")
        assert not out.exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(out) as aside:
        (aside / "whole").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (out / "whole").read_text() == "x"


def test_an_empty_folder_is_replaced_and_a_full_one_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with files.new_folder(tmp_path / "out") as aside:
        (aside / "a").write_text("")
    with pytest.raises(InputError, match="be empty"), files.new_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "a").exists()


def test_a_full_disk_is_one_clear_line() -> None:
    # /dev/full refuses every write with ENOSPC
    with (
        pytest.raises(StorageError, match="could not write /dev/full: No space left"),
        files.storage_errors(Path("/dev/full")),
        Path("/dev/full").open("w") as stream,
    ):
        stream.write("x" * 100_000)


def test_a_full_disk_met_by_safetensors_is_one_clear_line(tmp_path: Path) -> None:
    message = f"Error while serializing: I/O error: No space left on device (os error {errno.ENOSPC})"
    with pytest.raises(StorageError, match="no space left; free space"), files.storage_errors(tmp_path):
        raise SafetensorError(message)
    with pytest.raises(SafetensorError), files.storage_errors(tmp_path):
        raise SafetensorError("invalid header")


def test_jsonl_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"rows\.jsonl should be UTF-8 text"):
        files.read_jsonl(tmp_path / "rows.jsonl")


def test_other_errors_of_the_system_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.storage_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_json_is_replaced_in_one_step_and_checked_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"schema": "x/1", "value": 1})
    files.write_json(path, {"schema": "x/1", "value": 2})
    assert files.read_json(path, schema="x/1")["value"] == 2 and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ArtefactError, match="'y/1', found 'x/1'"):
        files.read_json(path, schema="y/1")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, float("nan"))
    assert len(list(tmp_path.iterdir())) == 1
    path.write_text("[]")
    with pytest.raises(ArtefactError, match="JSON object, found list"):
        files.read_json(path)
    path.write_text("{")
    with pytest.raises(ArtefactError, match="should hold JSON"):
        files.read_json(path)
    with pytest.raises(ArtefactError, match="there is none"):
        files.read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("text", "message"), [("", "should hold at least one row"), ("{}\n3\n", "line 2"), ('{"a": 1}\n{"a"\n', "line 2")]
)
def test_bad_jsonl_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        files.read_jsonl(path)
    with pytest.raises(InputError, match="there is none"):
        files.read_jsonl(tmp_path / "none.jsonl")


def test_jsonl_round_trip(tmp_path: Path) -> None:
    rows = [{"a": "é\n"}, {"b": [1, None]}]
    files.write_jsonl(tmp_path / "a.jsonl", rows)
    assert files.read_jsonl(tmp_path / "a.jsonl") == rows


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0c"])
def test_only_a_newline_ends_a_line_of_jsonl(tmp_path: Path, mark: str) -> None:
    path, rows = tmp_path / "a.jsonl", [{"text": f"one{mark}two"}, {"text": "three"}]
    path.write_text("\r\n".join(json.dumps(row, ensure_ascii=mark == "\x0c") for row in rows), encoding="utf-8")
    assert files.read_jsonl(path) == rows


def test_equal_values_have_equal_canonical_json() -> None:
    assert files.canonical_json({"b": 1, "a": [2]}) == files.canonical_json(json.loads('{"a":[2],"b":1}'))


def test_links_share_bytes_and_missing_keys_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    files.link_or_copy(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").stat().st_ino == (tmp_path / "a").stat().st_ino
    with pytest.raises(InputError, match="missing b"):
        files.require_keys({"a": 1}, ("a", "b"), where="row 1")
