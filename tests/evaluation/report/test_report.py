"""Reports hold the numbers, hide harmful words, and need nothing outside the file."""

import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prosocial.core.errors import ArtefactError
from prosocial.core.protocols import Judgement
from prosocial.evaluation.comparison.preferences import PreferenceEffect, preference_effects
from prosocial.evaluation.comparison.report import ComparisonReport, compare
from prosocial.evaluation.gate import measure_reliability
from prosocial.evaluation.outcomes.outcome import Outcome
from prosocial.evaluation.probes.probe import Probe
from prosocial.evaluation.report import assemble, choose_samples, print_report, render_page, sample, write_report
from prosocial.evaluation.report.charts import forest, plane, reliability_plot, ticks
from prosocial.evaluation.report.headline import headline, result_word
from prosocial.evaluation.report.terminal import print_parity
from prosocial.evaluation.report.wording import MINUS
from prosocial.verify.parity.divergence import Divergence
from prosocial.verify.parity.gates import GateResult, ParityVerdict
from prosocial.verify.parity.judging import GreedyComparison
from prosocial.verify.parity.report import ParityReport

VOID = {"meta", "br", "hr", "img", "input", "link"}
NASTY = '<script>alert("x")</script> & <b>'


def _probe(name: str, kind: str, **more: Any) -> Probe:
    return Probe(name, ({"role": "user", "content": f"{NASTY} {name}"},), kind, **more)


PROBES = [
    *[_probe(f"h{i}", "harmful", category=("glimming", "vorling")[i % 2], cluster=f"topic{i // 3}") for i in range(24)],
    *[_probe(f"t{i}", "twin", cluster=f"topic{i // 3}") for i in range(24)],
    *[_probe(f"b{i}", "benign") for i in range(24)],
    *[_probe(f"a{i}", "attack", attack="roleplay", prefill="Sure,") for i in range(4)],
]


def _outcome(probe: Probe, harmful_below: int, refused_above: int) -> Outcome:
    index = int(probe.id[1:])
    if probe.kind in ("harmful", "attack"):
        leak = index < harmful_below
        reply = "First snorvle the vat." if leak else "I cannot help."
        judged = Judgement(
            frozenset(["glimming"] if leak else []),
            "none" if leak else "full",
            {"empathy": index / 30},
            None,
            ((6, 13),) if leak else (),
        )
    else:
        refused = index >= refused_above
        reply = "I cannot help." if refused else f"Glaze it {NASTY}"
        judged = Judgement(frozenset(), "full" if refused else "none", {"empathy": 0.5}, not refused)
    return Outcome(probe.id, reply, judged, "lab 1")


OUTCOMES = {
    "base": [_outcome(probe, 20, 24) for probe in PROBES],
    "edited": [_outcome(probe, 6, 23) for probe in PROBES],
    "gated": [_outcome(probe, 0, 22) for probe in PROBES],
}


@pytest.fixture(scope="module")
def comparison() -> ComparisonReport:
    return compare(PROBES, OUTCOMES)


@pytest.fixture(scope="module")
def effects() -> list[PreferenceEffect]:
    def scored(shift: float) -> list[Outcome]:
        return [
            Outcome(probe.id, "x", Judgement(attributes={"empathy": 0.3 + shift * (1 + i % 3)}), "lab 1")
            for i, probe in enumerate(PROBES)
        ]

    return preference_effects(PROBES, scored(0.0), {"empathy": scored(0.1)})


@pytest.fixture(scope="module")
def parity() -> ParityReport:
    import numpy as np

    zero, true = np.zeros(3), np.ones(3, dtype=bool)
    found = Divergence(zero, np.array([0.0, 1e-7, np.inf]), true, zero, zero, (), 30, None, 0)
    gates = (
        GateResult("kl_p99", "KL divergence", float("inf"), 1e-5, ParityVerdict.FAIL, "default"),
        GateResult("flips", "Tokens", 0, 0, ParityVerdict.PASS, "default", "2 more at near ties"),
    )
    return ParityReport("PyTorch", "ONNX Runtime", gates, {"h0": found}, (GreedyComparison("h0", 1, 0.5, False),), 0)


@pytest.fixture(scope="module")
def calibration() -> dict[str, Any]:
    import numpy as np

    risk = np.random.default_rng(0).uniform(0, 0.6, 900)
    found = [measure_reliability(risk, risk > 0.4, np.arange(900), name=name) for name in ("any harm", NASTY)]
    tests = [
        {"threshold": 0.3, "n_leaks": 0, "n": 960, "upper": 0.003116, "holds": True},
        {"threshold": 0.4, "n_leaks": 2, "n": 512, "upper": 0.01225, "holds": False},
    ]
    return {
        "discount": 0.6,
        "n_replies": 300,
        "total": [one.to_json() for one in found],
        "categories": [found[0].to_json() | {"name": "glimming"}],
        "threshold": {"max_leak": 0.005, "confidence": 0.95, "tests": tests},
    }


@pytest.fixture
def document(
    comparison: ComparisonReport,
    effects: list[PreferenceEffect],
    parity: ParityReport,
    calibration: dict[str, Any],
    tmp_path: Path,
) -> dict[str, Any]:
    return write_report(
        tmp_path / "deep" / "report",
        title=f"quickstart {NASTY}",
        comparison=comparison,
        preferences=effects,
        parity=parity,
        calibration=calibration,
        samples=choose_samples(PROBES, OUTCOMES),
        facts={
            "recipe": "quickstart",
            "scale": 0.6,
            "model": "/home/someone/models/base",
            "windows": "C:\\a\\b",
            "seed": 0,
        },
    )


class Page(HTMLParser):
    """Checks that tags nest, and gathers what would be fetched, ids and text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data", "xmlns")
        ]
        self.ids += [str(value) for name, value in attrs if name == "id"]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if (self.get_starttag_text() or "").startswith(f"<{tag}") and (self.get_starttag_text() or "").endswith("/>"):
            return
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_well_formed_and_fetches_nothing(document: dict[str, Any], tmp_path: Path) -> None:
    source = (tmp_path / "deep" / "report" / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    assert page.fetched == []
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", source)
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert {"svg", "table", "details", "dl"} <= set(page.tags)
    assert "default-src 'none'" in source
    assert "prefers-color-scheme: dark" in source
    assert len(source) < 200_000


def test_the_page_tells_the_numbers_of_the_document(document: dict[str, Any]) -> None:
    text = " ".join("".join(Page(render_page(document)).words).split())
    assert " ".join(document["headline"]["verdict"].split()) in text
    assert "83.3 %" in text and "0.0 %" in text
    for wanted in ("roleplay", "glimming", "empathy", "ONNX Runtime", "lab 1", "not finite", "Korn", "[removed]"):
        assert wanted in text, wanted
    assert "does not make the same decisions as its reference" in text


def test_harmful_words_are_in_no_output_and_texts_are_escaped(document: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "report"
    for name in ("report.html", "report.json"):
        assert "snorvle" not in (folder / name).read_text(encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert any(
        piece["hidden"] for one in document["samples"] for reply in one["replies"] for piece in reply["segments"]
    )
    assert "█████" in page


def test_the_json_is_the_document_and_names_no_folder(document: dict[str, Any], tmp_path: Path) -> None:
    written = json.loads((tmp_path / "deep" / "report" / "report.json").read_text(encoding="utf-8"))
    assert written == document
    assert written["schema"] == "prosocial.report/1"
    assert written["facts"]["model"] == "base" and written["facts"]["windows"] == "b"
    assert str(tmp_path) not in json.dumps(written)


def test_parity_may_come_back_from_its_json(comparison: ComparisonReport, parity: ParityReport) -> None:
    read = json.loads(json.dumps(parity.to_json()))
    assert assemble(title="t", comparison=comparison, parity=read) == assemble(
        title="t", comparison=comparison, parity=parity
    )
    with pytest.raises(ArtefactError, match="parity_report/3"):
        assemble(title="t", comparison=comparison, parity={"schema": "prosocial.parity/1"})


def test_the_same_input_gives_the_same_bytes(
    document: dict[str, Any], comparison: ComparisonReport, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        write_report(tmp_path / name, title="t", comparison=comparison, samples=choose_samples(PROBES, OUTCOMES))
    for file in ("report.json", "report.html"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_the_table_within_its_width(document: dict[str, Any], width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    print_report(document, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, printed.splitlines())) <= width
    for wanted in ("gated", "83.3", "empathy", "KL divergence", "fail"):
        assert wanted in printed
    assert (f"edited {MINUS}" in printed) == (width >= 120)
    assert "snorvle" not in printed


def test_parity_alone_is_printed_with_its_verdict(parity: ParityReport) -> None:
    console = Console(file=io.StringIO(), width=100)
    print_parity(parity.to_json(), console)
    assert "verdict: FAIL" in console.file.getvalue()  # type: ignore[attr-defined]


def _headline(systems: dict[str, list[Outcome]]) -> dict[str, Any]:
    found: dict[str, Any] = assemble(title="t", comparison=compare(PROBES, systems))["headline"]
    return found


def test_the_headline_claims_no_more_than_the_intervals() -> None:
    better = _headline({"base": OUTCOMES["base"], "gated": OUTCOMES["gated"]})
    assert "fell from 83.3" in better["verdict"] and better["tone"] == "good"
    worse = _headline({"base": OUTCOMES["gated"], "gated": OUTCOMES["base"]} | {})
    assert "rose" in worse["verdict"] and worse["tone"] == "bad"
    same = _headline({"base": OUTCOMES["base"], "same": OUTCOMES["base"]})
    assert "No clear change" in same["verdict"] and same["tone"] == "open"
    assert all("no reply changed" in detail for detail in same["details"])
    both = _headline({"base": OUTCOMES["base"], "same": OUTCOMES["base"], "gated": OUTCOMES["gated"]})
    assert "(gated)" in both["verdict"] and "(same)" in both["details"][0]
    alone = _headline({"base": OUTCOMES["base"]})
    assert "only one system" in alone["verdict"]


@pytest.mark.parametrize(("finding", "tone"), [("no worse", "open"), ("cannot say", "bad"), ("worse", "bad")])
def test_a_clear_loss_of_utility_is_no_praise_and_only_blame_beyond_the_margin(finding: str, tone: str) -> None:
    systems = {"base": OUTCOMES["base"], "gated": OUTCOMES["gated"]}
    comparison = assemble(title="t", comparison=compare(PROBES, systems))["comparison"]
    benign = next(metric for metric in comparison["metrics"] if metric["name"] == "benign_success")
    benign["differences"]["gated"] |= {
        "estimate": -0.013,
        "low": -0.026,
        "high": -0.001,
        "non_inferiority": {"margin": 0.05, "finding": finding},
    }
    assert headline(comparison, None)["tone"] == tone


def test_a_report_of_the_smallest_comparison_renders() -> None:
    """One probe, one kind, no plot possible."""
    probes = [PROBES[0]]
    systems = {name: found[:1] for name, found in OUTCOMES.items()}
    page = render_page(assemble(title="t", comparison=compare(probes, systems)))
    assert "Harm against over-refusal" not in page
    Page(page)
    Page(render_page(assemble(title="t", comparison=compare(probes, {"base": systems["base"]}))))


def test_samples_are_chosen_by_rule_and_show_what_went_wrong() -> None:
    chosen = choose_samples(PROBES, OUTCOMES)
    why = [one["why"] for one in chosen]
    assert why.count("no longer harmful") == 2
    assert why.count("harmless request, newly refused") == 2
    assert choose_samples(PROBES[::-1], OUTCOMES) == chosen
    assert [reply["system"] for reply in chosen[0]["replies"]] == ["base", "edited", "gated"]
    back = choose_samples(PROBES, {"gated": OUTCOMES["gated"], "base": OUTCOMES["base"]}, reference="gated")
    assert any(one["why"] == "newly harmful" for one in back)


def test_an_empty_reply_is_said_to_be_empty(comparison: ComparisonReport) -> None:
    empty = sample(PROBES[30], {"base": Outcome(PROBES[30].id, "", Judgement(), "lab 1")})
    assert "(empty reply)" in render_page(assemble(title="t", comparison=comparison, samples=[empty]))


@given(st.floats(0, 1))
def test_ticks_cover_the_highest_value_with_few_round_steps(highest: float) -> None:
    found = ticks(highest)
    assert found[0] == 0 and found[-1] >= highest - 1e-9 and found[-1] <= 1
    assert 3 <= len(found) <= 6
    assert all(float(f"{100 * value:g}") == round(100 * value) for value in found)


def test_marks_of_the_plane_stay_inside_and_names_do_not_overlap(comparison: ComparisonReport) -> None:
    drawn = plane(comparison.to_json())
    assert drawn is not None
    for point in drawn["points"]:
        assert drawn["left"] <= point["x_low"] <= point["x"] <= point["x_high"] <= drawn["right"] + 1e-6
        assert drawn["top"] - 1e-6 <= point["y_high"] <= point["y"] <= point["y_low"] <= drawn["bottom"] + 1e-6
    assert drawn["points"][0]["y"] < drawn["points"][2]["y"]  # less harm is lower on the page
    assert len(drawn["arrows"]) == 2
    crowded = plane(compare(PROBES, {name: OUTCOMES["gated"] for name in ("base", "b", "c")}).to_json())
    assert crowded is not None and crowded["arrows"] == []
    heights = sorted(point["label_y"] for point in crowded["points"])
    assert all(later - earlier >= 15 for earlier, later in pairwise(heights))


def test_the_forest_is_symmetric_around_no_effect(effects: list[PreferenceEffect]) -> None:
    drawn = forest([effect.to_json() for effect in effects])
    assert drawn is not None
    (row,) = drawn["rows"]
    assert 50 < row["low"] < row["at"] < row["high"] <= 100
    assert [tick["text"] for tick in drawn["ticks"]][2] == "0"
    assert forest([]) is None
    unknown = {"attribute": "x", "difference": {"low": None, "high": None, "estimate": 0.0}}
    drawn = forest([unknown])
    assert drawn is not None and (drawn["rows"][0]["low"], drawn["rows"][0]["high"]) == (0, 100)


def test_the_reliability_plot_shows_every_bin_where_it_belongs(document: dict[str, Any]) -> None:
    page = Page(render_page(document))
    text = " ".join(page.words)
    assert "Calibration of the gate" in text and NASTY in text
    assert "0.31" in text and "holds" in text and "fails" in text
    drawn = reliability_plot(document["calibration"])
    assert drawn is not None and len(drawn["points"]) == 15 and drawn["name"] == NASTY
    points = drawn["points"]
    assert all(first["x"] < second["x"] for first, second in pairwise(points))
    assert points[0]["y"] == drawn["bottom"] and points[-1]["y"] == drawn["top"]  # harm came never, and always
    assert all(point["high"] <= point["y"] <= point["low"] for point in points)  # up is less in SVG
    assert reliability_plot(None) is None
    assert any("calibration error" in detail for detail in document["headline"]["details"])


def test_a_report_without_a_calibration_says_nothing_of_it(comparison: ComparisonReport) -> None:
    page = render_page(assemble(title="t", comparison=comparison))
    assert "alibration" not in page


def test_the_first_line_has_what_a_safety_reviewer_needs(comparison: ComparisonReport) -> None:
    figures = assemble(title="t", comparison=comparison)["headline"]["figures"]
    titles = [figure["title"] for figure in figures]
    assert titles == ["Harmful", "Declined", "Broken", "Over-refusal", "Worst attack"]
    attacks = [result.rates["gated"].estimate for result in comparison.attacks]
    assert figures[-1]["after"] == pytest.approx(max(attacks))


@pytest.mark.parametrize(
    ("low", "high", "finding", "word"),
    [
        (-0.03, -0.01, "no worse", "tolerable"),
        (-0.06, -0.01, "cannot say", "worse"),
        (-0.08, -0.06, "worse", "worse"),
        (-0.02, 0.01, "no worse", "held"),
        (-0.09, 0.01, "cannot say", "unclear"),
        (0.01, 0.02, "no worse", "better"),
        (-0.03, -0.01, None, "worse"),
    ],
)
def test_a_result_is_one_clear_word(low: float, high: float, finding: str | None, word: str) -> None:
    margin = None if finding is None else {"margin": 0.05, "finding": finding}
    difference = {"estimate": (low + high) / 2, "low": low, "high": high, "non_inferiority": margin}
    assert result_word({"better": "higher", "differences": {"gated": difference}}, "gated") == word
