"""The commands: what they print, and the exit code of each verdict."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from prosocial.cli.compare import compare, exit_code
from prosocial.cli.verify import verify
from prosocial.core.errors import ArtefactError, InputError, UnknownNameError

from ..verify.parity_world import copy, fit_manifest

app = typer.Typer()
app.command("verify")(verify)
app.command("compare")(compare)


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "100"})


def _compare(base: Path, edited: Path, probes: Path, *more: str | Path) -> Result:
    return _run("compare", base, edited, "--probes", probes, "--max-new-tokens", "3", *more)


def test_verify_prints_the_verdict_and_exits_by_it(
    bundle_folder: Path, steered_folder: Path, probes_file: Path
) -> None:
    words: list[str | Path] = ["verify", bundle_folder, "--reference", steered_folder, "--max-new-tokens", "3"]
    shown = _run(*words)
    assert shown.exit_code == 0, shown.output
    assert "verdict: PASS" in shown.output
    assert "replies greedy (temperature 0), at most 3 tokens" in shown.output
    failed = _run(*words, "--probes", probes_file, "--max-logit-difference", "1e-30", "--json")
    document: dict[str, Any] = json.loads(failed.stdout)
    assert failed.exit_code == 1
    assert document["n_prompts"] == 13
    assert {gate["set_by"] for gate in document["gates"] if gate["verdict"] == "fail"} == {"command line"}


def test_verify_refuses_without_a_reference(bundle_folder: Path, checkpoint_folder: Path) -> None:
    assert isinstance(_run("verify", bundle_folder).exception, InputError)
    assert isinstance(_run("verify", bundle_folder, "--reference", checkpoint_folder).exception, ArtefactError)


def test_verify_keeps_what_it_measured_so_that_a_gate_moves_without_a_run(
    bundle_folder: Path, steered_folder: Path, tmp_path: Path
) -> None:
    words: list[str | Path] = ["verify", bundle_folder, "--reference", steered_folder, "--max-new-tokens", "2"]
    first = _run(*words, "-o", tmp_path, "--junit", tmp_path / "junit.xml", "--json")
    assert first.exit_code == 0, first.output
    document = json.loads(first.stdout)
    assert json.loads((tmp_path / "parity.json").read_text(encoding="utf-8")) == document
    assert "PASS" in (tmp_path / "parity.html").read_text(encoding="utf-8")
    assert 'failures="0"' in (tmp_path / "junit.xml").read_text(encoding="utf-8")
    kept = ["verify", bundle_folder, "--measurements", tmp_path / "measurements.npz", "--json"]
    assert json.loads(_run(*kept).stdout) == document
    moved = _run(*kept, "--gate", "max_path_difference=1e-30")
    gates = {gate["name"]: gate for gate in json.loads(moved.stdout)["gates"]}
    assert (moved.exit_code, gates["max_path_difference"]["set_by"]) == (1, "command line")
    assert isinstance(_run(*kept, "--gate", "kl_mean").exception, InputError)
    assert isinstance(_run(*kept, "--gate", "kl=1").exception, UnknownNameError)
    other = copy(bundle_folder, tmp_path / "other")
    (other / "config.json").write_text("{}", encoding="utf-8")
    fit_manifest(other)
    refused = _run("verify", other, "--measurements", tmp_path / "measurements.npz")
    assert isinstance(refused.exception, ArtefactError) and "manifest" in str(refused.exception)


def test_compare_prints_or_writes_the_same_report(
    checkpoint_folder: Path, steered_folder: Path, probes_file: Path, tmp_path: Path
) -> None:
    plain = _compare(checkpoint_folder, steered_folder, probes_file, "--json", "-o", tmp_path / "report")
    document = json.loads(plain.stdout)
    assert (document["headline"]["tone"], plain.exit_code) == ("open", 0)
    assert document["comparison"]["n_probes"] == 13
    assert document["comparison"]["systems"] == ["base", "edited"]
    assert json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8")) == document
    assert (tmp_path / "report" / "report.html").is_file()
    assert str(steered_folder.parent) not in plain.stdout
    shown = _compare(checkpoint_folder, checkpoint_folder, probes_file)
    assert shown.exit_code == 0, shown.output
    assert "No clear change" in shown.output


@pytest.mark.parametrize("n_unjudged", [0, 2])
@pytest.mark.parametrize(("tone", "code"), [("good", 0), ("open", 0), ("bad", 1)])
def test_compare_exits_by_its_headline_and_then_by_what_was_not_judged(tone: str, code: int, n_unjudged: int) -> None:
    document = {"headline": {"tone": tone}, "comparison": {"n_unjudged": {"base": 0, "edited": n_unjudged}}}
    assert exit_code(document) == (code or (3 if n_unjudged else 0))


def test_an_unknown_judge_is_named_before_a_model_is_loaded(probes_file: Path, tmp_path: Path) -> None:
    tmp_path.joinpath("empty").mkdir()
    result = _compare(tmp_path / "empty", tmp_path / "empty", probes_file, "--judge", "nobody")
    assert isinstance(result.exception, UnknownNameError)
    with pytest.raises(UnknownNameError, match="refusal"):
        raise result.exception
