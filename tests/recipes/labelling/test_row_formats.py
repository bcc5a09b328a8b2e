"""Labelling reads the rows of other people's data, and never writes the text of a Python list."""

from pathlib import Path

import pytest

from prosocial.cli.main import main
from prosocial.core.files import read_jsonl, write_jsonl

WELL, NO = ({"role": "assistant", "content": text} for text in ("i am sorry to hear that.", "no."))
ASKED = {"role": "user", "content": "i lost my job."}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "i lost my job.", "first": [WELL], "second": [NO]},
        {"prompt": [ASKED], "chosen": [WELL], "rejected": [NO]},
        {"chosen": [ASKED, WELL], "rejected": [ASKED, NO]},
        {"prompt": "i lost my job.", "chosen": "i am sorry to hear that.", "rejected": "no.", "id": 4},
    ],
)
def test_pairs_are_labelled_as_text(row: dict[str, object], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [row])
    assert (
        main(["reward", "label", str(tmp_path / "pairs.jsonl"), "--judge", "lab", "-o", f"{tmp_path}/out.jsonl"]) == 0
    )
    (labelled,) = read_jsonl(tmp_path / "out.jsonl")
    assert (labelled["messages"], labelled["first"], labelled["second"]) == ([ASKED], WELL["content"], NO["content"])


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, NO]},
        {"conversations": [{"from": "human", "value": "i lost my job."}, {"from": "gpt", "value": "no."}]},
        {"prompt": [ASKED], "completion": [NO]},
    ],
)
def test_replies_are_labelled_as_text(row: dict[str, object], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [row])
    assert main(["gate", "label", str(tmp_path / "rows.jsonl"), "--judge", "lab", "-o", f"{tmp_path}/out.jsonl"]) == 0
    (labelled,) = read_jsonl(tmp_path / "out.jsonl")
    assert (labelled["messages"], labelled["reply"]) == ([ASKED], "no.")


def test_a_pair_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "hello", "first": ["a"], "second": ["b"]}])
    assert (
        main(["reward", "label", str(tmp_path / "pairs.jsonl"), "--judge", "lab", "-o", f"{tmp_path}/out.jsonl"]) == 2
    )
    assert "row 1: first[0] should be a message with role and content" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
