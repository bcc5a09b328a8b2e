"""A sweep as one self-contained HTML page without scripts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..report import charts, wording
from ..report.template import load_template
from .terminal import summary

TEMPLATE = Path(__file__).parent / "sweep.html.j2"
KL_TICKS = 5


def render_sweep(document: Mapping[str, Any]) -> str:
    """Return the HTML page of a sweep's document; all text is escaped.

    It plots all completed trials, the Pareto front as a line, and marks the best trial and the base.
    """
    complete = [trial for trial in document["trials"] if trial["state"] == "complete"]
    front = [trial for number in document["front"] for trial in complete if trial["number"] == number]
    n_pruned = len(document["trials"]) - len(complete)
    return load_template(TEMPLATE).render(
        document=document,
        front=front,
        pictures=[picture for cost in ("utility_lost", "kl") if (picture := scatter(document, complete, cost))],
        headline=summary(document, n_pruned),
        words=wording,
    )


def scatter(document: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], cost: str) -> dict[str, Any] | None:
    """Return the plot of harm (vertical) against a cost, `utility_lost` or `kl`; None if the cost is not known.

    The line is the Pareto front of these two objectives.
    """
    points = [
        (trial, value, trial["harm"]["estimate"]) for trial in trials if (value := cost_of(trial, cost)) is not None
    ]
    if not points:
        return None
    x_ticks = _kl_ticks(max(x for _, x, _ in points)) if cost == "kl" else charts.ticks(max(x for _, x, _ in points))
    y_ticks = charts.ticks(max(document["base"]["harm"]["estimate"], *(y for _, _, y in points)))
    frame = _Frame(x_ticks, y_ticks)
    marks = [
        {
            "x": frame.across(x),
            "y": frame.up(y),
            "number": trial["number"],
            "label": trial["label"],
            "on_front": trial["number"] in document["front"],
            "best": trial["number"] == document["best"],
        }
        for trial, x, y in points
    ]
    factor = 1 if cost == "kl" else 100
    return {
        "cost": cost,
        "title": "first-token KL on benign requests, nats" if cost == "kl" else "utility lost, points of 100",
        "marks": sorted(marks, key=lambda mark: (mark["best"], mark["on_front"])),
        "steps": _steps([(frame.across(x), frame.up(y)) for x, y in _lowest([(x, y) for _, x, y in points])]),
        "base": {"x": frame.across(0.0), "y": frame.up(document["base"]["harm"]["estimate"])},
        "limit": None if cost == "kl" else frame.across(document["settings"]["max_utility_loss"]),
        "frame": frame.edges,
        "x_ticks": [{"at": frame.across(value), "text": f"{factor * value:.3g}"} for value in x_ticks],
        "y_ticks": [{"at": frame.up(value), "text": f"{100 * value:g}"} for value in y_ticks],
    }


def cost_of(trial: Mapping[str, Any], cost: str) -> float | None:
    """Return the cost of a trial, at least 0: a gain counts as no cost.

    Examples:
        >>> cost_of({"kl": 0.2, "utility_lost": {"estimate": -0.01}}, "utility_lost")
        0.0
    """
    value = trial["kl"] if cost == "kl" else (trial["utility_lost"] or {}).get("estimate")
    return None if value is None else max(0.0, float(value))


class _Frame:
    """Maps values to coordinates of the plot."""

    def __init__(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> None:
        self._x, self._y = x_ticks[-1], y_ticks[-1]
        self.edges = {
            "width": charts.PLANE_WIDTH,
            "height": charts.PLANE_HEIGHT,
            "left": charts.LEFT,
            "right": charts.PLANE_WIDTH - charts.RIGHT,
            "top": charts.TOP,
            "bottom": charts.PLANE_HEIGHT - charts.BOTTOM,
        }

    def across(self, value: float) -> float:
        return self.edges["left"] + min(1.0, value / self._x) * (self.edges["right"] - self.edges["left"])

    def up(self, value: float) -> float:
        return self.edges["bottom"] - min(1.0, value / self._y) * (self.edges["bottom"] - self.edges["top"])


def _kl_ticks(highest: float) -> list[float]:
    """Return round tick values from 0 to at least `highest`, of any magnitude."""
    step = 1e-4
    while KL_TICKS * step < highest:
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    return [round(step * index, 8) for index in range(KL_TICKS + 1)]


def _lowest(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points with less harm than every cheaper point, cheapest first."""
    lowest: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not lowest or y < lowest[-1][1]:
            lowest.append((x, y))
    return lowest


def _steps(points: Sequence[tuple[float, float]]) -> str:
    """Return the staircase through the points as an SVG path."""
    if not points:
        return ""
    first, *rest = points
    return f"M{first[0]:.1f} {first[1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)
