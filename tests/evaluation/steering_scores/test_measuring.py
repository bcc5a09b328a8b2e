"""`prosocial steering`: a system asked at every preference, against itself without steering."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from prosocial.cli.steering import steering
from prosocial.core.errors import InputError
from prosocial.core.protocols import Judgement, Message
from prosocial.evaluation.outcomes.outcome import judge_replies
from prosocial.evaluation.probes.probe import read_probes
from prosocial.evaluation.sampling.systems import open_system
from prosocial.evaluation.steering_scores import measure_steering
from prosocial.steering.decoding.controls import Steering

app = typer.Typer()
app.command()(steering)


class WordJudge:
    """Scores by the numbers of the words."""

    name, version = "words", "1"

    def judge(self, messages: Sequence[Message], reply: str) -> Judgement:
        """Judge one reply."""
        numbers = [int(word.removeprefix("word")) for word in reply.split() if word.removeprefix("word").isdigit()]
        even = sum(number % 2 == 0 for number in numbers) / max(1, len(numbers))
        return Judgement(attributes={"empathy": even, "helpfulness": min(1.0, len(set(numbers)) / 8)})


def test_the_document_holds_what_the_replies_at_each_preference_score(steered_folder: Path, probes_file: Path) -> None:
    system, probes, judge = open_system(steered_folder), read_probes(probes_file), WordJudge()
    document = measure_steering(system, probes, judge=judge, seed=2, max_new_tokens=6)
    found = document["systems"]["steered"]
    names = document["attributes"]
    for preference, means in zip(document["preferences"], found["means"], strict=True):
        asked = Steering(preference=dict(zip(names, preference, strict=True)))
        replies = system.answer(probes, seed=2, temperature=1.0, max_new_tokens=6, steering=asked)
        outcomes = judge_replies(probes, replies, judge)
        expected = [sum(one.attributes[name] for one in outcomes) / len(outcomes) for name in names]
        assert means == pytest.approx(expected, abs=1e-5)
    plain = system.answer(probes, seed=2, temperature=1.0, max_new_tokens=6, steering=Steering(reward_scale=0.0))
    own = [one.attributes["empathy"] for one in judge_replies(probes, plain, judge)]
    corner = found["means"][document["preferences"].index([1.0, 0.0])][names.index("empathy")]
    assert found["gains"]["empathy"]["estimate"] == pytest.approx(corner - sum(own) / len(own), abs=1e-5)


def test_a_checkpoint_without_a_head_is_refused(checkpoint_folder: Path, probes_file: Path) -> None:
    with pytest.raises(InputError, match="found a checkpoint and 13 probes"):
        measure_steering(open_system(checkpoint_folder), read_probes(probes_file), judge=WordJudge())


def test_the_command_writes_the_page_and_exits_by_monotonicity(
    bundle_folder: Path, probes_file: Path, tmp_path: Path
) -> None:
    words = [str(bundle_folder), "--probes", str(probes_file), "--judge", "lab", "--max-new-tokens", "4"]
    shown = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")], env={"COLUMNS": "120"})
    document = json.loads((tmp_path / "out" / "steering.json").read_text())
    found = document["systems"]["bundle"]
    assert shown.exit_code == (0 if found["monotone"] else 1), shown.output
    assert f"{len(document['preferences'])} preferences, 13 probes each" in shown.output
    assert (tmp_path / "out" / "steering.html").read_text().startswith("<!doctype html>")
    machine = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(machine.stdout) == document


@pytest.mark.parametrize(
    ("edges", "match"), [("0,half,1", "numbers separated by commas"), ("0,0.5", "increase from 0 to 1")]
)
def test_edges_that_are_none_are_refused(steered_folder: Path, probes_file: Path, edges: str, match: str) -> None:
    words = [str(steered_folder), "--probes", str(probes_file), "--judge", "lab", "--edges", edges]
    with pytest.raises(InputError, match=match):
        CliRunner().invoke(app, words, catch_exceptions=False)
