"""CoSA-Scores as one HTML page and as tables in the terminal."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prosocial.core.files import replacing_report, write_json, write_text

from ..report import charts, wording
from ..report.template import load_template

TEMPLATE = Path(__file__).parent / "cosa_score.html.j2"


def write_scores(folder: Path, document: Mapping[str, Any]) -> None:
    """Write `cosa_score.json` and the self-contained `cosa_score.html`.

    Raises:
        StorageError: the folder cannot be written.
    """
    with replacing_report(folder, "cosa_score.json"):
        write_text(folder / "cosa_score.html", render_scores(document))
        write_json(folder / "cosa_score.json", document)


def render_scores(document: Mapping[str, Any]) -> str:
    """Return the HTML page of a document of `score_document`; all text is escaped."""
    rows = [(system, *entry) for system, scores in document["systems"].items() for entry in _entries(scores)]
    colours = {name: at % charts.PALETTE for at, name in enumerate(document["systems"])}
    return load_template(TEMPLATE).render(
        document=document, rows=rows, colours=colours, score=score_text, words=wording
    )


def print_scores(document: Mapping[str, Any], console: Console) -> None:
    """Print the scores of every system by group and config, and the number of replies not judged."""
    for system, scores in document["systems"].items():
        console.print(_table(system, scores))
        if scores["n_unjudged"]:
            reason = next(iter(scores["reasons"]))
            console.print(Text(f"{wording.plural(scores['n_unjudged'], 'reply')} not judged, most often: {reason}"))
        if scores["n_unread_filter_answers"]:
            answers = wording.plural(scores["n_unread_filter_answers"], "answer")
            console.print(Text(f"{answers} of its filter were neither yes nor no: these replies were kept"))
    console.print(Text("intervals: 95 %, by topic; in brackets with each topic counted once", style="dim"))


def _table(system: str, scores: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.title, table.title_justify = Text(system, style="bold"), "left"
    table.add_column("configs")
    for name in ("CoSA-Score", "helpful+safe", "helpful+unsafe"):
        table.add_column(name, justify="right")
    for name, entry in _entries(scores):
        shares = [_share(entry[key]) for key in ("helpful_safe", "helpful_unsafe")]
        table.add_row(name, score_text(entry["cosa_score"]), *shares)
    return table


def score_text(interval: Mapping[str, Any] | None) -> str:
    """Return a score with the limits of its interval.

    Examples:
        >>> score_text({"estimate": 0.4081, "low": -0.05, "high": 0.5})
        '0.408, \u22120.050 to 0.500'
    """
    if interval is None:
        return "?"
    estimate, low, high = (f"{interval[key]:.3f}".replace("-", wording.MINUS) for key in ("estimate", "low", "high"))
    return f"{estimate}, {low} to {high}"


def _entries(scores: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and scores of each group of a system, then of each config."""
    for name, entry in scores["groups"].items():
        yield f"{name} configs", entry
    yield from scores["configs"].items()


def _share(interval: Mapping[str, Any] | None) -> str:
    return "?" if interval is None else f"{wording.percent(interval['estimate'])}, {wording.limits(interval)}"
