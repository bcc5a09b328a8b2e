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
LOWEST = -12  # lower end of the axis, as a power of ten
FEWEST_POWERS = 14  # shown on the axis, more if a value or threshold is larger


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
    """Return the marks of a plot on a logarithmic axis, in per cent of its width.

    One row per measure: p10 to p99, median, maximum, and the threshold of its gate. The axis ends above the largest
    value and threshold, so that each is drawn where it is; a value that is not finite is drawn at the end.
    """
    thresholds = {gate["name"]: gate["threshold"] for gate in document["gates"]}
    measures = [(title, document[name], thresholds.get(gate)) for title, name, gate in MEASURES]
    measures = [one for one in measures if one[1] is not None]
    shown = [value for _, summary, limit in measures for value in (summary["max"], limit) if value]
    highest = max([LOWEST + FEWEST_POWERS, *(math.ceil(math.log10(value)) for value in shown)])

    def across(value: float | None) -> float:
        power = highest if value is None else math.log10(max(value, 10.0**LOWEST))
        return 100 * (power - LOWEST) / (highest - LOWEST)

    rows = [
        {"title": title, "limit": None if limit is None else across(limit), "threshold": limit}
        | {key: across(summary[key]) for key in ("p10", "median", "p99", "max")}
        for title, summary, limit in measures
    ]
    step = 4 if highest - LOWEST <= 16 else 8
    ticks = [{"x": across(10.0**power), "text": f"1e{power}"} for power in range(LOWEST, highest + 1, step)]
    return {"rows": rows, "ticks": ticks}


def _by_prompt(flips: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for flip in flips:
        grouped.setdefault(flip["prompt"], []).append(flip)
    return grouped
