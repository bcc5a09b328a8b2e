"""The table of every probe: what it withholds, the one script that may run, and a real browser that filters it."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from prosocial.core.protocols import Judgement
from prosocial.evaluation import report
from prosocial.evaluation.comparison.report import compare
from prosocial.evaluation.outcomes.outcome import Outcome
from prosocial.evaluation.probes.probe import Probe
from prosocial.evaluation.report import assemble, render_page
from prosocial.evaluation.report.drilldown import LONGEST, every_probe
from prosocial.evaluation.report.script import page_script
from prosocial.evaluation.statistics import JudgeErrors

NASTY = "</script><script>document.title='owned'</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _probe(name: str, kind: str, **more: Any) -> Probe:
    return Probe(name, ({"role": "user", "content": f"How to snorvle {NASTY} {name}?"},), kind, **more)


PROBES = [
    *[_probe(f"h{i}", "harmful", category=("glimming", "vorling")[i % 2]) for i in range(12)],
    *[_probe(f"t{i}", "twin", twin_of=f"h{i}") for i in range(12)],
    _probe("a0", "attack", attack="prefill", prefill="Sure, snorvle"),
]


def _outcome(probe: Probe, leaks_below: int, refuses_below: int) -> Outcome:
    index, harmless = int(probe.id[1:]), probe.kind == "twin"
    if harmless:
        said = Judgement(refusal="full" if index < refuses_below else "none", success=index >= refuses_below)
        return Outcome(probe.id, f"A fine day {NASTY}", said, "lab 1")
    leak = index < leaks_below
    said = Judgement(frozenset(["x"] if leak else []), "none", {}, None, ((6, 13),) if leak else ())
    return Outcome(probe.id, "First snorvle the vat.", said, "lab 1")


OUTCOMES = {
    "base": [_outcome(probe, 8, 0) for probe in PROBES],
    "edited": [
        _outcome(probe, 2, 3)
        if probe.id != "h11"
        else Outcome("h11", "Who knows", Judgement(error="it timed out"), "lab 1")
        for probe in PROBES
    ],
}


def _document(*, reveal: bool = False) -> dict[str, Any]:
    rows = every_probe(PROBES, OUTCOMES, reveal=reveal)
    return assemble(title="base and edited", comparison=compare(PROBES, OUTCOMES), probes=rows)


def test_every_probe_is_there_once_with_what_changed() -> None:
    rows = _document()["probes"]
    assert [row["probe"] for row in rows] == [probe.id for probe in PROBES]
    changed = {row["probe"]: row["change"] for row in rows if row["change"]}
    assert {name for name, change in changed.items() if change == "no longer harmful"} == {f"h{i}" for i in range(2, 8)}
    assert {name for name, change in changed.items() if change == "newly refused"} == {"t0", "t1", "t2"}
    assert changed["h11"] == "not judged"


def test_requests_for_harm_are_withheld_and_harmful_words_black() -> None:
    document = _document()
    rows = {row["probe"]: row for row in document["probes"]}
    assert rows["h0"]["messages"] == [] and rows["a0"]["prefill"] == ""
    assert rows["t0"]["messages"] != []
    assert len(rows["h0"]["digest"]) == 64
    assert "snorvle" not in str(rows["h0"]["replies"]) and "Who knows" not in str(rows["h11"])
    revealed = {row["probe"]: row for row in _document(reveal=True)["probes"]}
    assert "snorvle" in str(revealed["h0"]["messages"]) and "snorvle" in str(revealed["h0"]["replies"])


def test_the_json_is_of_the_published_schema() -> None:
    schema = json.loads((Path(report.__file__).parent / "report.schema.json").read_text(encoding="utf-8"))
    errors = JudgeErrors(50, 45, 80, 76)
    known = {name: {"harm": errors, "refusal": errors} for name in OUTCOMES}
    document = _document() | {"comparison": compare(PROBES, OUTCOMES, judge_errors=known).to_json()}
    jsonschema.validate(json.loads(json.dumps(document)), schema)
    for wrong in (document | {"schema": "other"}, document | {"more": 1}, document | {"probes": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_long_replies_are_cut() -> None:
    probe = PROBES[12]
    long = {name: [Outcome(probe.id, "word " * 1000, Judgement(refusal="none"), "lab 1")] for name in OUTCOMES}
    (row,) = every_probe([probe], long)
    assert sum(len(piece["text"]) for piece in row["replies"][0]["segments"]) == LONGEST + 1


def test_only_our_script_may_run() -> None:
    page = render_page(_document())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script == page_script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(policy)
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy.partition("script-src")[2]
    assert "owned" in page and html.escape(NASTY, quote=False).split("=")[0] in page
    assert "innerHTML" not in script and "eval" not in script
    assert "<script" not in render_page(_document() | {"probes": []})


@pytest.mark.prove
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("", {probe.id for probe in PROBES}),
        ("#change=newly+refused&open", {"t0", "t1", "t2"}),
        ("#find=glimming", {f"h{i}" for i in range(0, 12, 2)}),
    ],
)
def test_a_browser_filters_and_unfolds(asked: str, shown: set[str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_page(_document()), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    found = subprocess.run(
        [*command, "--dump-dom", f"{page.as_uri()}{asked}"], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    rows = re.findall(r'<tr data-change="[^"]*"( hidden="")?>.*?<details( open="")?><summary>([^<]*)', found, re.DOTALL)
    assert len(rows) == len(PROBES)
    assert {name for hidden, _, name in rows if not hidden} == shown
    assert {name for _, is_open, name in rows if is_open} == (shown if "open" in asked else set())
    assert "owned" not in re.findall(r"<title>(.*?)</title>", found)[0]
    assert f"{len(shown)} of {len(PROBES)}" in found
