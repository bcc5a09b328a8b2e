"""What the guides show is what the commands say, on the results of the real quickstart; `make prove` makes those."""

import re
import shutil
from pathlib import Path

import pytest

from ..hub.hub_fixture import LoopbackHub
from .pages import ROOT, name_of
from .test_pages import tell

RUN = ROOT / "runs" / "quickstart"
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PARTS = ("base", "vector", "edit", "steered", "bundle", "data")
MODEL_TEXT = ("prosocial generate",)  # words and numbers of a model that was trained on another processor
MEASURED = re.compile(r"\b[0-9a-f]{8,}\b|\d+(?:,\d{3})+|-?\d+\.\d+(?:e[-+]?\d+)?|\d+(?:e[-+]\d+)|\b\d+(?= positions)")
LEFT_OUT = re.compile(r"\(.*\)")  # a line such as (shortened)


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the quickstart's results, wide enough for its tables."""
    if not RUN.is_dir():
        pytest.skip("there is no runs/quickstart: make quickstart")
    for part in PARTS:
        shutil.copytree(RUN / part, tmp_path / "runs" / "quickstart" / part)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def plain(text: str) -> str:
    """Return text without frames and line ends, and without digests and measured numbers, in which machines differ."""
    return MEASURED.sub("#", " ".join(re.sub(r"[\u2500-\u257f]", " ", text).split()))


def missing(shown: list[str], said: str) -> list[str]:
    """Return the lines of a page that the command did not say."""
    whole = plain(said)
    return [line for line in shown if not LEFT_OUT.fullmatch(line.strip()) and plain(line) not in whole]


def test_a_line_that_is_not_said_is_found() -> None:
    """The control of the next test."""
    said = "\u2502 n_edited \u2502 21 \u2502\nlargest difference 1.81e-05, fingerprint b04db5a69d22e120"

    assert missing(["n_edited 21", "(shortened)", "difference 2.00e-05, fingerprint 0123456789abcdef"], said) == []
    assert missing(["n_edited 22", "verdict: PASS"], said) == ["n_edited 22", "verdict: PASS"]


@pytest.mark.prove
@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_shows_what_is_said(page: Path, real: Path, hub: LoopbackHub) -> None:
    wrong: dict[str, list[str]] = {}

    def check(line: str, shown: list[str], said: str) -> None:
        if said and not line.startswith(MODEL_TEXT):
            wrong[line] = missing(shown, said)

    tell(page, check)

    assert {line: lines for line, lines in wrong.items() if lines} == {}
    assert wrong or "deploy" in page.name, "a guide should show commands"
