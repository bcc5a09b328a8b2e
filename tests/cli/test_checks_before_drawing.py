"""What can be known to fail is refused before the first reply is drawn."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from prosocial.cli.main import main
from prosocial.steering.decoding.loop import Loop

from ..roots import ROOT

GOLDEN = ROOT / "tests" / "golden" / "0.1.0"
DEAD = "endpoint:m@http://127.0.0.1:9/v1"  # nothing listens on the port of the discard service
MINE = '''
from prosocial.core.protocols import Judgement


class Silent:
    """Judges harm, scores nothing."""

    name, version = "silent", "1"

    def judge(self, messages, reply):
        return Judgement()


class Failing(Silent):
    name = "failing"

    def judge(self, messages, reply):
        return Judgement(error="it has no opinion")
'''

# (command line, what the error says); {file} is a file, {full} a folder with a file in it.
CASES = [
    ("compare <base> <edited> --probes <data/probes.jsonl> -o {out} --eval-logs {out}.logs", "prosocial[inspect]"),
    ("compare <base> <edited> --probes <data/probes.jsonl> --eval-logs {file}", "{file} should be a place"),
    ("compare <base> <edited> --probes <data/probes.jsonl> -o {file}/below", "{file} is a file"),
    (f"compare <base> <edited> --probes <data/probes.jsonl> --judge {DEAD}", "should judge a trial reply"),
    ("compare <base> <edited> --probes <data/probes.jsonl> --judge mine.py:Failing", "it has no opinion"),
    ("steering <bundle> --probes <data/probes.jsonl> --judge refusal", "unknown judge of attributes 'refusal'"),
    ("steering <bundle> --probes <data/probes.jsonl> --judge mine.py:Silent", "no score for empathy"),
    ("steering <bundle> --probes <data/probes.jsonl> --judge lab -o {file}", "{file} should be a place"),
    ("steering <bundle> --probes <data/probes.jsonl> --judge lab --rubric emphaty=warm", "did you mean empathy?"),
    (f"steering <bundle> --probes <data/probes.jsonl> --judge {DEAD} --rubric empathy=warm", "should answer"),
    ("config score <bundle> --probes <data/probes.jsonl> --judge refusal", "unknown judge of replies under"),
    ("config score <bundle> --probes <data/probes.jsonl> --judge mine.py:Silent", "no score for helpfulness"),
    (f"config score <bundle> --probes <data/probes.jsonl> --judge {DEAD}", "should judge a trial reply"),
    ("config score <bundle> --probes <data/probes.jsonl> --judge lab -o {file}", "{file} should be a place"),
    (f"sweep <base> --harmful <adapter> --probes <data/probes.jsonl> --judge {DEAD} -o {{out}}", "a trial reply"),
    ("sweep <base> --harmful <adapter> --probes <data/probes.jsonl> -o {file}", "{file} should be a place"),
    ("sweep <base> --harmful <adapter> --probes <data/probes.jsonl> -o {full} --pick 0", "edited-0 should not exist"),
    ("sweep <base> --harmful <adapter> --probes <data/probes.jsonl> -o {swept}", "a sweep with the same settings"),
    (
        f"gate calibrate <steered> --probes <data/calibration.jsonl> --judge {DEAD} --set max_leak=1.0 -o {{out}}",
        "trial",
    ),
    ("gate calibrate <steered> --probes <data/calibration.jsonl> --judge refusal -o {file}/below", "is a file"),
    (
        f"gate train <edited> --replies <data/replies.jsonl> --prompts <data/prompts.jsonl> --judge {DEAD} -o {{out}}",
        "should judge a trial reply",
    ),
    ("verify <bundle> --reference <steered> --probes <data/probes.jsonl> -o {file}", "{file} should be a place"),
    ("verify <bundle> --reference <steered> --probes <data/probes.jsonl> --junit {full}", "{full} should be a place"),
    ("audit <edited> --base <base> --vector <vectors/dense> --junit {full}", "{full} should be a place"),
    ("audit <edited> --base <base> --vector <vectors/dense> -o {file}", "{file} should be a place"),
    ("reward label <data/pairs.jsonl> --judge refusal -o {out}", "unknown judge of attributes 'refusal'"),
    ("reward train <edited> --pairs <data/pairs.jsonl> --rubric warmth=warm -o {out}", "attribute of --rubric"),
    ("gate label <data/replies.jsonl> --judge refusal --categories other -o {out}", "judge of harm categories"),
]


@pytest.fixture
def world(tmp_path: Path) -> dict[str, str]:
    """Places that cannot be written, and a folder for a sweep with other settings."""
    (tmp_path / "file").write_text("")
    (tmp_path / "full" / "edited-0").mkdir(parents=True)
    (tmp_path / "full" / "edited-0" / "notes.txt").write_text("mine")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "swept").mkdir()
    return {name: str(tmp_path / name) for name in ("out", "file", "full", "swept")}


@pytest.mark.parametrize(("line", "says"), CASES)
def test_nothing_is_drawn_before_what_must_fail(
    line: str,
    says: str,
    world: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(Loop, "run", lambda *given: drawn.append(given))
    monkeypatch.setitem(sys.modules, "inspect_ai", None)  # as where the extra is not installed
    monkeypatch.delitem(sys.modules, "prosocial.evaluation.inspect_ai.logs", raising=False)
    monkeypatch.chdir(tmp_path)
    if "{swept}" in line:
        shutil.copy(GOLDEN / "sweep" / "trials.json", world["swept"])
    words = shlex.split(line.replace("<", f"{GOLDEN}/").replace(">", "").format(**world))

    code = main(words)

    error = capsys.readouterr().err
    assert (code, drawn) == (2, []), error
    assert says.format(**world) in error.splitlines()[-1], error
