"""Every page's commands and Python run as written, in order, and print what the page shows.

The usual tier runs them on a small quickstart, where any number may stand for a number; `make prove` on the real one.
"""

from pathlib import Path

import pytest

from ..hub.hub_fixture import LoopbackHub
from .conftest import copy_run
from .pages import PAGES, ROOT, blocks, name_of
from .walk import NOT_RUN, Walk, difference, not_run

RUN = ROOT / "runs" / "quickstart"
ELSEWHERE = {  # their Python needs a model of its own
    "docs/reward.md": "tests/docs/test_reward_page.py",
    "docs/steering.md": "tests/docs/test_steering_page.py",
}
WALKED = [
    page
    for page in PAGES
    if name_of(page) not in ELSEWHERE and any(block.language in ("console", "python") for block in blocks(page))
]
walked = pytest.mark.parametrize("page", WALKED, ids=name_of)
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to read a page in, wide enough for its tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


@walked
def test_a_page_runs_as_written(page: Path, small_run: Path, place: Path, hub: LoopbackHub) -> None:
    copy_run(small_run, place)

    assert Walk(page, exact=False).read().differences == []


def test_the_guide_on_publishing_ends_in_a_publication_that_others_can_check(
    small_run: Path, place: Path, hub: LoopbackHub
) -> None:
    from prosocial.core import TrustedKey
    from prosocial.export.hub import download

    copy_run(small_run, place)
    Walk(ROOT / "docs" / "guides" / "publish.md", exact=False).read()

    assert "model.sig" in hub.files("org/name") and len(hub.repositories["org/name"].commits) == 2
    assert "license: apache-2.0" in hub.files("org/name")["README.md"].decode()
    assert (download("org/name", keys=[TrustedKey.read(Path("key.pub"))], is_bundle=True) / "model.onnx").is_file()


@pytest.mark.prove
@walked
def test_a_page_shows_what_the_quickstart_prints(page: Path, place: Path, hub: LoopbackHub) -> None:
    if not RUN.is_dir():
        pytest.skip("there is no runs/quickstart: make quickstart")
    copy_run(RUN, place)

    assert Walk(page, exact=True).read().differences == []


def test_what_is_printed_otherwise_is_reported() -> None:
    """The control of the tests above."""
    printed = (
        "\u2502 n_edited \u2502 21 \u2502\nlargest difference 1.81e-05, fingerprint b04db5a69d22e120\nto share it\n"
    )
    shown = ["n_edited 21", "largest difference \u22482.00e-05, fingerprint b0\u2026", "\u2248 to fold it"]

    assert difference(shown, printed, exact=True) == ""
    assert "n_edited 22" in difference(["n_edited 22", "\u2026"], printed, exact=True)
    assert difference(["n_edited 22", "\u2026"], printed, exact=False) == ""
    assert "2.00e-05" in difference(["\u2026", "largest difference 2.00e-05, fingerprint \u2026"], printed, exact=True)
    assert "nothing more" in difference(["n_edited 21"], printed, exact=True)
    assert "verdict: PASS" in difference(["verdict: PASS", "\u2026"], printed, exact=False)


def test_nothing_is_left_out_without_a_reason() -> None:
    left_out = {"make quickstart", "prosocial chat BUNDLE", "prosocial inspect ORG/NAME", "pip install x"}
    run = {"prosocial run mine.yaml --dry-run", "cp -rL a b", "openssl ec -in key.pem", "prosocial edit base -o edited"}

    assert all(map(not_run, left_out)) and not any(map(not_run, run)) and all(NOT_RUN.values())


def test_pages_elsewhere_are_run_there() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")
