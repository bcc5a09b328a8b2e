"""The command as somebody types it: a plan, a publication, one line for whatever is wrong."""

import json
from pathlib import Path

import pytest

from prosocial.cli.main import main

from ..hub.hub_fixture import LoopbackHub
from ..hub_helpers import NAME, make_folder, write_report

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "bundle")


def run(capsys: Capture, *words: object) -> tuple[int, str, str]:
    code = main(["publish", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_dry_run_shows_plan_and_card_and_sends_nothing(hub: LoopbackHub, folder: Path, capsys: Capture) -> None:
    code, out, _ = run(capsys, folder, NAME, "--license", "mit", "--dry-run")

    assert code == 0 and hub.repositories == {} and hub.log == ["info"]
    for part in ("model.onnx.data", "private", "no repository yet", "license: mit", "## Limits", "not signed"):
        assert part in out


def test_a_dry_run_needs_no_token(
    hub: LoopbackHub, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert run(capsys, folder, NAME, "--license", "mit", "--dry-run")[0] == 0
    code, _, error = run(capsys, folder, NAME, "--license", "mit")

    assert code == 2 and "hf auth login" in error and error.count("\n") == 1 and hub.log == []


def test_what_was_published_is_one_json_object(hub: LoopbackHub, folder: Path, capsys: Capture) -> None:
    code, out, _ = run(capsys, folder, NAME, "--license", "mit", "--tag", "v1", "--json")
    said = json.loads(out)

    assert code == 0 and said["published"]["url"] == f"{hub.url}/{NAME}/tree/v1"
    assert said["plan"]["verification"]["verdict"] == "pass" and said["published"]["is_new"]
    code, out, _ = run(capsys, folder, NAME, "--license", "mit", "--tag", "v1")
    assert code == 0 and f"already there, private: {hub.url}/{NAME}/tree/v1" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--audit", "{}"), "--audit does not apply"),
        (("--parity", "{}"), "is stale"),
        (("--comparison", "{}"), "schema 'prosocial.report/1'"),
        (("--public", "--publish-harmful-weights-private-and-gated"), "which is not harmful"),
    ],
)
def test_what_does_not_fit_is_one_line(
    hub: LoopbackHub, folder: Path, tmp_path: Path, capsys: Capture, words: tuple[str, ...], message: str
) -> None:
    other = write_report(folder, subject={}).rename(tmp_path / "other.json")
    write_report(folder)
    code, _, error = run(capsys, folder, NAME, "--license", "mit", *(str(other) if w == "{}" else w for w in words))

    assert code == 2 and message in error and error.count("\n") == 1
    assert hub.repositories == {}
