"""Printing reports in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import wording

STYLES = {"good": "bold green", "bad": "bold red", "open": "bold yellow"}
WIDE = 120
VERDICT_STYLES = {"pass": "green", "ambiguous": "yellow", "fail": "bold red"}


def print_report(document: Mapping[str, Any], console: Console) -> None:
    """Print a document of `assemble`: headline, rates with intervals, preference effects, parity."""
    headline = document["headline"]
    console.print()
    console.print(Text(document["title"], style="dim"))
    console.print(Text(headline["verdict"], style=STYLES[headline["tone"]]))
    for detail in headline["details"]:
        console.print(Text(f"  {detail}"))
    console.print()
    console.print(rate_table(document["comparison"], width=console.width))
    if document["preferences"]:
        console.print()
        console.print(preference_table(document["preferences"]))
    if document["parity"] is not None:
        console.print()
        console.print(parity_table(document["parity"]))


def print_parity(parity: Mapping[str, Any], console: Console) -> None:
    """Print the JSON of a `ParityReport`: verdict, gates, size of the differences, decisions that differ."""
    verdict = parity["verdict"]
    console.print(
        Text.assemble(
            ("verdict: ", ""),
            (verdict.upper(), VERDICT_STYLES[verdict]),
            f"  {parity['bundle']} against {parity['reference']}",
        )
    )
    first = parity["first_difference"]
    if first is not None:
        after = f"; {first['after']} before it agrees" if first["after"] else ""
        console.print(Text(f"first difference at {first['place']}{after}", style="bold red"))
    console.print(parity_table(parity))
    if not parity["n_positions"]:
        return
    console.print()
    console.print(distance_table(parity))
    for line in wording.decision_lines(parity):
        console.print(Text(line), highlight=False)


def rate_table(comparison: Mapping[str, Any], *, width: int = WIDE) -> Table:
    """Return a table of the rates of every system, with limits, and their changes from the reference.

    Below a width of 120 columns only the last system's change is shown, so that the table fits into 80 columns.
    """
    reference = comparison["reference"]
    changed = [system for system in comparison["systems"] if system != reference]
    changed = changed if width >= WIDE else changed[-1:]
    results = [*comparison["metrics"], *comparison["attacks"]]
    wider = any("(" in wording.limits(rate) for one in results for rate in one["rates"].values())
    caption = "interval below each rate" + (", in brackets with each topic counted once" if wider else "")
    table = _table(caption=f"{caption}; green: clearly better, red: clearly worse")
    table.add_column("rate")
    for system in comparison["systems"]:
        table.add_column(system, justify="right", min_width=12)
    for system in changed:
        table.add_column(f"{system} {wording.MINUS} {reference}", justify="right", min_width=14)
    for metric in results:
        rates, differences = metric["rates"], metric["differences"]
        table.add_row(
            Text.assemble(metric["title"], (f" (n {rates[reference]['n']})", "dim")),
            *(_cell(wording.percent(rate["estimate"]), wording.limits(rate)) for rate in rates.values()),
            *(_difference_cell(metric, differences[system]) for system in changed),
        )
    return table


def preference_table(preferences: list[Mapping[str, Any]]) -> Table:
    """Return a table of the effect of raising each attribute's preference."""
    table = _table()
    for name in ("preference", "n", "equal weights", "all on it", "change"):
        table.add_column(name, justify="left" if name == "preference" else "right")
    for effect in preferences:
        difference = effect["difference"]
        table.add_row(
            effect["attribute"],
            str(difference["n"]),
            wording.percent(effect["uniform"]["estimate"]),
            wording.percent(effect["corner"]["estimate"]),
            _cell(
                wording.signed(difference["estimate"]),
                wording.limits(difference, difference=True),
                style=_tone(difference, better_is_higher=True),
            ),
        )
    return table


def parity_table(parity: Mapping[str, Any]) -> Table:
    """Return a table of the gates of a parity report."""
    table = _table()
    for name in ("parity", "observed", "at most", "set by", "verdict"):
        table.add_column(name, justify="right" if name in ("observed", "at most") else "left")
    for gate in parity["gates"]:
        note = f" ({gate['note']})" if gate["note"] else ""
        table.add_row(
            gate["title"] + note,
            wording.number(gate["observed"]),
            wording.number(gate["threshold"]),
            gate["set_by"],
            Text(gate["verdict"], style=VERDICT_STYLES[gate["verdict"]]),
        )
    return table


def distance_table(parity: Mapping[str, Any]) -> Table:
    """Return a table of the differences of logits, distributions and risks."""
    table = _table()
    columns = ("mean", "median", "p90", "p99", "p99_9", "max")
    for name in ("measured", *(column.replace("_", ".") for column in columns)):
        table.add_column(name, justify="left" if name == "measured" else "right")
    for title, name in (
        ("logit difference", "logit_difference"),
        ("KL on tokens both allow (nats)", "kl"),
        ("risk difference", "risk_difference"),
        ("risk difference of a token", "token_risk_difference"),
    ):
        if parity[name] is not None:
            table.add_row(title, *(wording.number(parity[name][column]) for column in columns))
    return table


def _difference_cell(metric: Mapping[str, Any], difference: Mapping[str, Any]) -> Text:
    style = _tone(difference, better_is_higher=metric["better"] == "higher")
    return _cell(wording.signed(difference["estimate"]), wording.limits(difference, difference=True), style=style)


def _tone(difference: Mapping[str, Any], *, better_is_higher: bool) -> str:
    if not wording.is_clear(difference):
        return ""
    return "green" if (difference["estimate"] > 0) == better_is_higher else "red"


def _cell(value: str, limits: str, *, style: str = "") -> Text:
    return Text.assemble((value, style), ("\n" + limits.replace(" (", "\n("), "dim"))


def _table(*, caption: str | None = None) -> Table:
    return Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        padding=(0, 2, 0, 0),
        caption=caption,
        caption_justify="left",
        caption_style="dim",
    )
