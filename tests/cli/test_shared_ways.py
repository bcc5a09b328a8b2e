"""What commands share is the same in each: how replies are drawn, limits, amounts of output, dry runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main

from prosocial.cli.main import app, main
from prosocial.evaluation.cosa_score import ScoreSettings
from prosocial.evaluation.model_comparison import ComparisonSettings
from prosocial.evaluation.sweep import Answering
from prosocial.recipes.steering.schema import VerifySettings

from ..roots import ROOT

GOLDEN = ROOT / "tests" / "golden" / "0.1.0"
DRAW = ("compare", "sweep", "steering", "config score", "gate calibrate")
Capture = pytest.CaptureFixture[str]


def command(name: str) -> Any:
    found: Any = typer.main.get_command(app)
    for word in name.split():
        found = found.commands[word]
    return found


def every_command() -> list[Any]:
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    return [inner for each in commands for inner in getattr(each, "commands", {"": each}).values()]


def test_every_command_can_be_quiet_and_verbose() -> None:
    for each in every_command():
        assert {"--quiet", "--verbose"} <= {option for one in each.params for option in one.opts}, each.name


@pytest.mark.parametrize("name", DRAW)
def test_replies_are_drawn_alike_everywhere(name: str) -> None:
    options = {one.name: one for one in command(name).params}

    assert options["temperature"].default == VerifySettings().temperature == 1.0
    assert options["seed"].default == 0
    assert "--limit" in {option for one in options.values() for option in one.opts}


def test_the_library_draws_as_the_commands_do() -> None:
    defaults = {settings().temperature for settings in (ComparisonSettings, ScoreSettings, Answering)}

    assert defaults == {VerifySettings().temperature}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "a", "b", "--probes", "p", "--temperature", "0.0001"], "at least 0.001"),
        (["compare", "a", "b", "--probes", "p", "--temperature", "inf"], "finite"),
        (["compare", "a", "b", "--probes", "p", "--temperature", "nan"], "--temperature"),
        (["compare", "a", "b", "--probes", "p", "--margin", "nan"], "--margin should be a number"),
        (["compare", "a", "b", "--probes", "p", "--seed", "-1"], "seed"),
        (["tune", "a", "--rows", "r", "-o", "x", "--seed", str(2**40)], "seed"),
        (["sweep", "a", "--harmful", "h", "--probes", "p", "-o", "x", "--pick", "bset"], "--pick should be best"),
        (["sweep", "a", "--harmful", "h", "--probes", "p", "-o", "x", "--pick", "40"], "--pick should be best"),
        (["run", "quickstart", "--set", "seed=-1", "--dry-run", "--out", "x"], "seed"),
        (["run", "quickstart", "--set", "reward.adapter.targets='('", "--dry-run", "--out", "x"], "regular expression"),
        (["run", "quickstart", "--set", "harmful.targets='('", "--dry-run", "--out", "x"], "regular expression"),
        (["run", "quickstart", "--set", "verify.temperature=0.0001", "--dry-run", "--out", "x"], "at least 0.001"),
        (["run", "quickstrat"], "did you mean quickstart?"),
        (["generate", str(GOLDEN / "bundle"), "hi", "--safety-config", "no/signed.json"], "there is no such file"),
        (["generate", str(GOLDEN / "bundle"), "hi", "--safety-config", "fictoin"], "did you mean fiction?"),
        (["generate", str(GOLDEN / "bundle")], "either PROMPT or --batch-file"),
    ],
)
def test_a_bad_value_is_met_at_the_start(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(words) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_earlier_name_of_a_dry_run_works_and_says_so(capsys: Capture) -> None:
    words = ["edit", str(GOLDEN / "base"), "--subtract", str(GOLDEN / "vectors" / "dense"), "--scale", "1", "--json"]
    assert main([*words, "--dry-run"]) == 0
    new = capsys.readouterr()
    assert main([*words, "--plan"]) == 0
    old = capsys.readouterr()

    assert (new.out, new.err) == (old.out, "")
    assert "--plan is called --dry-run now" in old.err


def test_a_batch_is_one_line_of_json_for_each_row(tmp_path: Path, capsys: Capture) -> None:
    prompts = ["how do i bake bread?", "tell me about rivers."]
    rows = tmp_path / "prompts.jsonl"
    rows.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    options = ["--max-new-tokens", "3", "--json"]
    assert main(["generate", str(GOLDEN / "bundle"), "--batch-file", str(rows), *options]) == 0
    batch = [json.loads(line)["reply"]["text"] for line in capsys.readouterr().out.splitlines()]

    for prompt, text in zip(prompts, batch, strict=True):
        assert main(["generate", str(GOLDEN / "bundle"), prompt, *options]) == 0
        assert json.loads(capsys.readouterr().out)["reply"]["text"] == text


def test_quiet_leaves_only_the_result(capsys: Capture) -> None:
    words = ["generate", str(GOLDEN / "bundle"), "how do i bake bread?", "--max-new-tokens", "2"]
    assert main(words) == 0
    loud = capsys.readouterr()
    assert main([*words, "--quiet"]) == 0
    quiet = capsys.readouterr()

    assert quiet.out == loud.out
    assert "gate:" in loud.err and quiet.err == ""
