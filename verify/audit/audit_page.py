"""An audit as one self-contained HTML page with a single inline script."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosocial.core.files import replacing_report, write_json, write_text
from prosocial.evaluation.report import wording
from prosocial.evaluation.report.script import page_policy, page_script
from prosocial.evaluation.report.template import load_template

from .audit_document import Weight
from .forensics import formula

TEMPLATE = Path(__file__).parent / "audit.html.j2"
WIDTH, LEFT, ROW, MOST_ROWS = 640.0, 260.0, 18.0, 60


def write_audit(out: Path, document: Mapping[str, Any]) -> None:
    """Write `audit.json` and `audit.html` into a folder; existing files are replaced.

    Raises:
        StorageError: the folder cannot be written.
    """
    with replacing_report(out, "audit.json"):
        write_text(out / "audit.html", render_audit(document))
        write_json(out / "audit.json", document)


def render_audit(document: Mapping[str, Any]) -> str:
    """Return the HTML page of an audit's JSON; all text is escaped."""
    verdicts = list(dict.fromkeys(tensor["verdict"] for tensor in document["tensors"]))
    return load_template(TEMPLATE).render(
        document=document,
        verdicts=verdicts,
        plot=coefficients(document),
        formula=lambda weights: formula(Weight.model_validate(weight) for weight in weights),
        policy=page_policy(),
        script=page_script(),
        words=wording,
    )


def coefficients(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the marks of a plot of the recovered coefficients, one row per tensor and vector; None if there are none.

    A coefficient is the weight with the other sign: `model = base - coefficient * vector`, as in the edit record.
    """
    recovered = [
        (
            f"{tensor['name']}" if len(document["vectors"]) < 2 else f"{tensor['name']} · {weight['vector']}",
            {"low": -weight["high"], "high": -weight["low"], "estimate": -weight["estimate"]},
        )
        for tensor in document["tensors"]
        for weight in tensor["weights"]
        if weight["estimate"] is not None
    ]
    if not recovered:
        return None
    values = [0.0, *(weight[end] for _, weight in recovered for end in ("low", "high"))]
    low = float(min(values))
    span = float(max(values)) - low or 1.0

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 40) * (value - low) / span

    rows = [
        {"name": name, "y": 16 + ROW * at, "value": f"{weight['estimate']:.6g}"}
        | {end: across(weight[end]) for end in ("low", "high", "estimate")}
        for at, (name, weight) in enumerate(recovered[:MOST_ROWS])
    ]
    return {"rows": rows, "zero": across(0.0), "width": WIDTH, "height": 24 + ROW * len(rows), "n": len(recovered)}
