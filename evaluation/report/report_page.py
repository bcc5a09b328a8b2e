"""The report as one self-contained HTML page, whose only script sorts and filters its tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import charts, wording
from .headline import result_word
from .script import page_policy, page_script
from .template import load_template

TEMPLATE = Path(__file__).parent / "report.html.j2"


def render_page(document: Mapping[str, Any]) -> str:
    """Return the HTML page of a document of `assemble`; all text is escaped.

    The page supports light and dark mode, narrow screens and printing. Its content security policy blocks all loading.
    """
    comparison = document["comparison"]
    colours = {system: index % charts.PALETTE for index, system in enumerate(comparison["systems"])}
    return load_template(TEMPLATE).render(
        document=document,
        comparison=comparison,
        parity=document["parity"],
        others=[system for system in comparison["systems"] if system != comparison["reference"]],
        colours=colours,
        plane=charts.plane(comparison),
        calibration=document["calibration"],
        curve=charts.reliability_plot(document["calibration"]),
        forest=charts.forest(document["preferences"]),
        rate_bar=charts.rate_bar,
        result_word=result_word,
        words=wording,
        script=page_script(),
        policy=page_policy(scripted=bool(document["probes"])),
    )
