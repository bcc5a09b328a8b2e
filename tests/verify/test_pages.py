"""The pages of verify and audit: nothing is lost, nothing gets out, and they work in a browser."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

from prosocial.evaluation.report.junit import audit_cases, junit, parity_cases
from prosocial.evaluation.report.script import page_policy, page_script
from prosocial.verify.audit import audit_model
from prosocial.verify.audit.audit_page import render_audit, write_audit
from prosocial.verify.parity.files import write_parity
from prosocial.verify.parity.gates import ParityGates
from prosocial.verify.parity.measure import Setting, join, measure_setting
from prosocial.verify.parity.parity_page import render_parity

from ..audit_helpers import MATRIX, base_tensors, edit, make_vector, move_one_ulp
from .table_engine import PROMPTS, TableEngine, V

Json = dict[str, Any]
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A failing comparison, one of its prompts with a hostile name, and a refuted audit, both written."""
    out = tmp_path_factory.mktemp("pages")
    noise = np.random.default_rng(1).normal(0, 0.05, (V, V))
    engines = TableEngine(), TableEngine(nudge=noise, risk_nudge=noise)
    prompts = PROMPTS | {HOSTILE: [5, 6]}
    found = join([measure_setting(Setting(name, *engines, prompts, 8)) for name in ("graph defaults", "empathy=1")])
    write_parity(out / "parity", found, found.judge(ParityGates()).to_json())
    base = base_tensors(size=24)
    make_vector(out, base)
    edited = edit(out)
    move_one_ulp(edited, MATRIX, 70)
    report = audit_model(edited, base=out / "base", vectors=[out / "vector"], ignore_record=True)
    write_audit(out / "audit", report.to_json())
    return out


def document(folder: Path, name: str) -> Json:
    loaded: Json = json.loads((folder / name / f"{name}.json").read_text())
    return loaded


class Outside(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        if names & {"src", "href", "srcset", "action"} or tag in {"img", "iframe", "link", "object", "base"}:
            self.found.append(tag)
        self.found += [name for name in names if name.startswith("on")]


@pytest.mark.parametrize("name", ["parity", "audit"])
def test_a_page_is_one_file_that_runs_our_script_alone(folder: Path, name: str) -> None:
    page = (folder / name / f"{name}.html").read_text()
    seen = Outside()
    seen.feed(page)
    assert seen.found == []
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert scripts == [str(page_script())]
    assert (
        page_policy().split("'sha256-")[1].rstrip("'") in page
        and "unsafe-inline" not in page_policy().split("script-src")[1]
    )
    assert str(folder) not in page


def test_hostile_names_are_escaped_everywhere(folder: Path) -> None:
    audit = document(folder, "audit")
    audit["model"] = audit["tensors"][0]["reason"] = audit["levels"][0]["reasons"][0] = HOSTILE
    for page in (render_parity(document(folder, "parity")), render_audit(audit)):
        assert "&lt;img src=x" in page and "<img" not in page and "<script>document.title" not in page


def test_no_control_character_reaches_a_page(folder: Path) -> None:
    """A page may be shown by `cat` too, and text that runs backwards deceives in a browser as well."""
    audit = document(folder, "audit")
    audit["model"] = audit["tensors"][0]["reason"] = "\x1b]0;owned\x07 \u202edlo"
    page = render_audit(audit)
    assert "\\x1b]0;owned\\x07 \\u202edlo" in page
    assert not [letter for letter in page if letter != "\n" and (ord(letter) < 32 or letter == "\u202e")]


def test_a_page_without_anything_measured_still_says_why(folder: Path) -> None:
    from prosocial.verify.parity.measurement import Measurement

    dead = Measurement("a", "b", {}, (), 0, failure="the process died with signal 11")
    assert "signal 11" in render_parity(dead.judge(ParityGates()).to_json())
    assert "Nothing could be checked" in render_audit(document(folder, "audit") | {"levels": [], "tensors": []})


def test_junit_counts_every_gate_and_fails_what_is_no_pass(folder: Path) -> None:
    parity, audit = document(folder, "parity"), document(folder, "audit")
    parity["gates"][0]["note"] = f"{HOSTILE}\x00"
    for told, cases in ((parity["gates"], parity_cases(parity)), (audit["tensors"], audit_cases(audit))):
        (suite,) = fromstring(junit("prosocial", cases))
        failed = [case for case in suite if len(case)]
        assert len(suite) == int(suite.attrib["tests"]) >= len(told)
        assert len(failed) == int(suite.attrib["failures"]) > 0
    ambiguous = [gate | {"verdict": "ambiguous"} for gate in parity["gates"]]
    (suite,) = fromstring(junit("prosocial", parity_cases(parity | {"gates": ambiguous})))
    assert int(suite.attrib["failures"]) == len(ambiguous)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, where there is one."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the path")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_parity_page_opens_filters_sorts_and_expands(folder: Path, browser: Any, scheme: str) -> None:
    page = browser.new_page(viewport={"width": 380, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((folder / "parity" / "parity.html").as_uri())
    assert said == [] and page.title() == "Parity: fail"
    assert page.evaluate("document.documentElement.scrollWidth") <= 380  # fits a phone: tables scroll in themselves
    rows = page.locator("#prompts tbody tr:visible")
    assert rows.count() == 8
    page.get_by_label("Search").fill("empathy=1")
    assert rows.count() == 4 and page.locator(".filters output").inner_text() == "4 of 8"
    page.get_by_label("Search").fill("")
    column = page.locator("#prompts thead button", has_text="largest KL")
    found = []
    for _ in range(2):
        column.click()
        values = page.locator("#prompts tbody tr").evaluate_all("rows => rows.map(row => +row.cells[3].dataset.value)")
        found.append(values)
    assert found[0] == sorted(found[0]) and found[1] == found[0][::-1] and len({*found[0]}) > 2
    opened = page.locator("#prompts details").first
    assert not opened.locator("li").first.is_visible()
    opened.locator("summary").click()
    assert opened.locator("li").first.is_visible()
    page.close()


def test_an_audit_page_shows_by_verdict(folder: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((folder / "audit" / "audit.html").as_uri())
    rows = page.locator("#tensors tbody tr:visible")
    assert rows.count() == 3
    page.get_by_label("Verdict").select_option("refuted")
    assert rows.count() == 1 and MATRIX in rows.first.inner_text()
    rows.first.locator("summary").click()
    assert "expected" in rows.first.locator("li").first.inner_text()
    page.close()


def test_a_script_that_got_past_the_escaping_would_not_run(folder: Path, browser: Any, tmp_path: Path) -> None:
    text = (folder / "audit" / "audit.html").read_text()
    (tmp_path / "page.html").write_text(text.replace("</main>", f"</main>{HOSTILE}"))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.title() == "Audit: refuted"
    page.close()
