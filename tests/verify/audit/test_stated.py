"""An audit confirms what it recomputed; what only the record states is refuted, or named as not verified."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prosocial.verify import audit_model
from prosocial.verify.audit.audit_document import AuditReport
from prosocial.verify.audit.audit_page import coefficients, render_audit
from prosocial.verify.audit.verdicts import AuditVerdict

from ...audit_helpers import MATRIX, base_tensors, edit, make_vector, write

Change = Callable[[dict[str, Any]], object]
CONFIRMED, REFUTED, CANNOT_SAY = AuditVerdict.CONFIRMED, AuditVerdict.REFUTED, AuditVerdict.CANNOT_SAY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An edit of a base with a template, and a second edit of the result."""
    write(tmp_path / "base", base_tensors(), chat_template__jinja="{{ messages }}", LICENSE="free")
    make_vector(tmp_path, base_tensors())
    edit(tmp_path)
    edit(tmp_path, base="out", out="twice", scale=0.2)
    return tmp_path


def audit(folder: Path, change: Change, *, out: str = "out", base: str | None = "base") -> AuditReport:
    path = folder / out / "edit_record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    vectors = [folder / "vector"] if base else []
    return audit_model(folder / out, base=folder / base if base else None, vectors=vectors)


def tensor(record: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = record["result"]["tensors"][MATRIX]
    return entry


def term(**entries: object) -> Change:
    return lambda record: record["terms"][0].update(entries)


LIES: dict[str, tuple[Change, AuditVerdict, str]] = {
    "inner product": (lambda r: r["result"].update(inner_product=-1e9), REFUTED, "inner product"),
    "gain": (lambda r: tensor(r).update(gain=0.5), REFUTED, "gain"),
    "cosine": (lambda r: tensor(r).update(cosine=0.1), REFUTED, "cosine"),
    "relative error": (lambda r: tensor(r).update(relative_error=0.0), REFUTED, "relative_error"),
    "relative change": (lambda r: tensor(r).update(relative_change=0.0), REFUTED, "relative_change"),
    "unchanged share": (lambda r: tensor(r).update(unchanged_share=0.99), REFUTED, "unchanged_share"),
    "a measure left out": (lambda r: tensor(r).update(gain=None), REFUTED, "gain"),
    "a measure of an untouched tensor": (
        lambda r: r["result"]["tensors"]["lm_head.weight"].update(gain=1.0), REFUTED, "lm_head.weight: gain"
    ),
    "changed": (lambda r: tensor(r).update(changed=False), REFUTED, "changed"),
    "method": (term(method="plain|<b>x"), REFUTED, "method of the vector"),
    "parameters": (term(parameters={"density": 0.5}), REFUTED, "parameters of the vector"),
    "storage": (term(storage="sparse"), REFUTED, "storage of the vector"),
    "harmful kind": (term(harmful_kind="adapter"), REFUTED, "harmful_kind"),
    "harmful fingerprint": (term(harmful_fingerprint="0" * 64), REFUTED, "harmful_fingerprint"),
    "base of the vector": (term(base_fingerprint="0" * 64), REFUTED, "base_fingerprint"),
    "dtypes of the base": (lambda r: r["base"].update(dtypes={"F32": 99}), REFUTED, "dtypes of the base"),
    "an invented earlier edit": (lambda r: r["base"].update(previous={"x": 1}), REFUTED, "earlier edit"),
    "another decimal": (
        lambda r: r["terms"][0]["coefficients"][0].update(decimal="9.9"), REFUTED, "states the coefficient 9.9"
    ),
    "side files emptied": (lambda r: r["result"].update(side_files={}), CANNOT_SAY, "config.json: it can change"),
    "the template not listed": (
        lambda r: r["result"]["side_files"].pop("chat_template.jinja"), CANNOT_SAY, "chat_template.jinja: it can"
    ),
    "another arithmetic": (lambda r: r["arithmetic"].update(compute_dtype="float64"), CANNOT_SAY, "arithmetic unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_statement_that_the_files_contradict_is_not_confirmed(folder: Path, name: str) -> None:
    change, verdict, reason = LIES[name]
    report = audit(folder, change)

    assert report.verdict is verdict
    assert any(reason in each for level in report.levels for each in level.reasons)


STATED: dict[str, tuple[Change, str]] = {
    "tool": (lambda r: r["tool"].update(name="mergekit", version="9"), "tool: mergekit 9"),
    "pattern": (lambda r: r["terms"][0]["coefficients"][0].update(pattern="all of it"), "selected: all of it"),
    "a licence not listed": (lambda r: r["result"]["side_files"].pop("LICENSE"), "does not list: LICENSE"),
    "how the vector was made": (lambda r: None, "how the vector was made: plain, from checkpoint"),
}


@pytest.mark.parametrize("name", STATED)
def test_what_only_the_record_states_is_named(folder: Path, name: str) -> None:
    change, text = STATED[name]
    report = audit(folder, change)

    assert report.verdict is CONFIRMED
    assert any(text in each for each in report.unverified)
    assert all(each in render_audit(report.to_json()) for each in report.unverified)


def test_without_the_base_the_whole_edit_is_only_stated(folder: Path) -> None:
    report = audit(folder, lambda record: record["result"].update(inner_product=-1e9), base=None)

    assert report.verdict is CONFIRMED  # of the digests
    assert {"base", "inner product", "gains"} <= set(report.unverified)


def test_an_earlier_edit_is_compared_with_the_record_of_the_base(folder: Path) -> None:
    assert audit(folder, lambda record: None, out="twice", base="out").verdict is CONFIRMED
    report = audit(folder, lambda r: r["base"]["previous"]["tool"].update(name="x"), out="twice", base="out")

    assert report.verdict is REFUTED
    assert any("differs from edit_record.json of the base" in each for each in report.levels[-1].reasons)


def test_the_page_shows_the_coefficient_with_the_sign_of_the_record(folder: Path) -> None:
    """0.6 was subtracted: 0.6 in the record, on the command line, in the formula and in the plot."""
    report = audit_model(folder / "out", base=folder / "base", vectors=[folder / "vector"], ignore_record=True)
    document = report.to_json()
    plot = coefficients(document)

    assert plot is not None
    assert {row["value"] for row in plot["rows"]} == {"0.6"}
    assert all(plot["zero"] < row["low"] <= row["estimate"] <= row["high"] for row in plot["rows"])
    page = render_audit(document)
    assert "base - 0.6 * vector" in page
    assert "model = base - coefficient · vector" in page
