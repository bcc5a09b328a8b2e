"""A parity report as one self-contained HTML page, without the text of probes and with a single inline script."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.evaluation.report import wording
from prosocial.evaluation.report.script import page_policy, page_script
from prosocial.evaluation.report.template import load_template

TEMPLATE = Path(__file__).parent / "parity.html.j2"
MEASURES = (
    ("logit difference", "logit_difference", "max_logit_difference"),
    ("KL, nats", "kl", "kl_p99"),
    ("risk difference", "risk_difference", "max_risk_difference"),
    ("risk difference of a token", "token_risk_difference", "token_risk_p99"),
)
PERCENTILES = ("mean", "min", "p10", "median", "p90", "p99", "p99_9", "max")
LOWEST, HIGHEST = -12, 2  # ends of the axis, as powers of ten
WIDTH, LEFT, ROW = 640.0, 170.0, 34.0


def render_parity(document: Mapping[str, Any]) -> str:
    """Return the HTML page of a parity report's JSON; all text is escaped."""
    return load_template(TEMPLATE).render(
        document=document,
        ladder=ladder(document),
        measures=[(title, document[name]) for title, name, _ in MEASURES if document[name] is not None],
        percentiles=PERCENTILES,
        lines=wording.decision_lines(document) if document["n_positions"] else [],
        flips=_by_prompt(document["safe_set"]["flips"]),
        policy=page_policy(),
        script=page_script(),
        words=wording,
    )


def ladder(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the marks of a plot on a logarithmic axis, one row per measure: p10 to p99, median, maximum, threshold."""
    limits = {gate["name"]: gate["threshold"] for gate in document["gates"]}
    rows: list[dict[str, Any]] = []
    for title, name, gate in MEASURES:
        summary = document[name]
        if summary is not None:
            ends = {key: _across(summary[key]) for key in ("p10", "median", "p99", "max")}
            limit = limits.get(gate)
            y = 22 + ROW * len(rows)
            rows.append({"title": title, "y": y, **ends, "limit": None if limit is None else _across(limit)})
    ticks = [{"x": _across(10.0**power), "text": f"1e{power}"} for power in range(LOWEST, HIGHEST + 1, 2)]
    return {"rows": rows, "ticks": ticks, "width": WIDTH, "height": 22 + ROW * len(rows) + 14}


def _across(value: float | None) -> float:
    power = HIGHEST if value is None else math.log10(max(value, 10.0**LOWEST))
    return LEFT + (WIDTH - LEFT - 20) * (min(power, HIGHEST) - LOWEST) / (HIGHEST - LOWEST)


def _by_prompt(flips: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for flip in flips:
        grouped.setdefault(flip["prompt"], []).append(flip)
    return grouped
