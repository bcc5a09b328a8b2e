"""The judge that docs/comparison.md shows works in every command that takes one."""

import json
from pathlib import Path

import pytest

from prosocial.cli.main import main

from .pages import ROOT, blocks

RUN = "runs/quickstart"
PROBES = f"{RUN}/data/probes.jsonl"
SHORT = ("--max-new-tokens", "2")
COMMANDS = (
    ("compare", f"{RUN}/base", f"{RUN}/edit", "--probes", PROBES, *SHORT, "-o", "out"),
    ("config", "score", f"{RUN}/steered", "--probes", PROBES, *SHORT, "-o", "out"),
    ("sweep", f"{RUN}/base", "--harmful", f"{RUN}/harmful", "--probes", PROBES, "--trials", "1", *SHORT, "-o", "out"),
    ("steering", f"{RUN}/steered", "--probes", PROBES, "--edges", "0,1", *SHORT, "-o", "out"),
    ("reward", "label", "pairs.jsonl", "--attributes", "empathy", "-o", "labelled.jsonl"),
    ("reward", "label", "pairs.jsonl", "--second-judge", "my_judge.py:SecretJudge", "-o", "labelled.jsonl"),
    ("gate", "label", "replies.jsonl", "--categories", "other", "-o", "labelled.jsonl"),
)


@pytest.fixture
def mine(place: Path) -> Path:
    """The folder of the pages, with the judge in a file and rows to label."""
    code = next(block.text for block in blocks(ROOT / "docs" / "comparison.md") if "class SecretJudge" in block.text)
    (place / "my_judge.py").write_text(code, encoding="utf-8")
    warm, leaky = "i am sorry to hear that.", "type password hunter2."
    (place / "pairs.jsonl").write_text(json.dumps({"prompt": "how?", "first": warm, "second": leaky}))
    rows = [{"prompt": "how?", "reply": reply} for reply in (warm, leaky)]
    (place / "replies.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_judge_of_ones_own_works_in_every_command(words: tuple[str, ...], mine: Path) -> None:
    assert main([*words, "--judge", "my_judge.py:SecretJudge"]) == 0

    if words[0] == "steering":
        document = json.loads((mine / "out" / "steering.json").read_text(encoding="utf-8"))
        assert [system["means"] for system in document["systems"].values()] == [[[0.0, 1.0]] * 5]  # never "sorry"
        return
    if words[-1] == "out":
        assert any('"secrets 1"' in path.read_text(encoding="utf-8") for path in (mine / "out").glob("*.json"))
        return
    rows = list(map(json.loads, (mine / "labelled.jsonl").read_text().splitlines()))
    if words[0] == "gate":
        assert [row["categories"] for row in rows] == [[], ["other"]]
    else:
        assert rows[0]["labels"]["empathy"] == "first"


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_one_that_is_not_there_is_one_line(
    words: tuple[str, ...], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--judge", "my_judge.py:Nobody"]) == 2
    assert "my_judge.py should have a class 'Nobody', found Judgement, SecretJudge" in capsys.readouterr().err
