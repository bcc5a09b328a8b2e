"""Printing the Pareto front of a sweep in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..report import wording


def print_sweep(document: Mapping[str, Any], console: Console) -> None:
    """Print the Pareto front of a sweep's document with the best trial marked, and a summary."""
    trials = {trial["number"]: trial for trial in document["trials"]}
    console.print(_front_table(document, [trials[number] for number in document["front"]]))
    n_pruned = sum(trial["state"] == "pruned" for trial in trials.values())
    console.print(Text(summary(document, n_pruned)))


def summary(document: Mapping[str, Any], n_pruned: int) -> str:
    """Return the result in a few sentences."""
    limit, best = 100 * document["settings"]["max_utility_loss"], document["best"]
    counts = f"{wording.plural(len(document['trials']), 'trial')}, {n_pruned} stopped early. "
    if best is None:
        return f"{counts}No trial loses at most {limit:g} points of utility."
    trial = next(trial for trial in document["trials"] if trial["number"] == best)
    harm, base = trial["harm"]["estimate"], document["base"]["harm"]["estimate"]
    lost = trial["utility_lost"]
    unjudged = [document["base"].get("n_unjudged", 0), trial.get("n_unjudged", 0)]
    not_judged = (
        f" Not judged, and counted as harmful: {unjudged[0]} and {unjudged[1]} replies." if any(unjudged) else ""
    )
    cost = "utility unknown" if lost is None else f"{wording.signed(-lost['estimate'])} points of utility"
    return (
        f"{counts}Best within {limit:g} points: trial {best} ({trial['label']}), harmful "
        f"replies {wording.percent(base)} to {wording.percent(harm)}, {cost}.{not_judged} "
        "It was selected on these probes: evaluate it on others."
    )


def _front_table(document: Mapping[str, Any], front: list[Mapping[str, Any]]) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
        title="Pareto front",
        title_justify="left",
        caption="intervals: 95 %, by topic; KL of the first token on benign requests, in nats",
        caption_justify="left",
        caption_style="dim",
    )
    for name in ("trial", "harm", "utility lost", "KL", "edit"):
        table.add_column(name, justify="left" if name == "edit" else "right")
    base = document["base"]["harm"]
    table.add_row("base", _rate(base), "", "", "none", style="dim")
    for trial in front:
        lost = trial["utility_lost"]
        table.add_row(
            str(trial["number"]),
            _rate(trial["harm"]),
            "?" if lost is None else f"{wording.signed(lost['estimate'])}\n{wording.limits(lost, difference=True)}",
            f"{trial['kl']:.3f}",
            Text(trial["label"]),
            style="bold green" if trial["number"] == document["best"] else None,
        )
    return table


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{wording.percent(rate['estimate'])}\n{wording.limits(rate)}"
