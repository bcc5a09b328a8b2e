"""A report on steering as one HTML page, with a Pareto plot per pair of attributes and a table of all steps."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from prosocial.core.files import replacing_report, write_json, write_text

from ..report import charts, wording
from ..report.template import load_template

TEMPLATE = Path(__file__).parent / "steering.html.j2"
Points = Sequence[tuple[float, float]]


def write_steering_page(folder: Path, document: Mapping[str, Any]) -> None:
    """Write `steering.json` and the self-contained `steering.html`.

    Raises:
        StorageError: the folder cannot be written.
    """
    with replacing_report(folder, "steering.json"):
        write_text(folder / "steering.html", render_steering(document))
        write_json(folder / "steering.json", document)


def render_steering(document: Mapping[str, Any]) -> str:
    """Return the HTML page of a document of `steering_document`; all text is escaped."""
    pairs = combinations(range(len(document["attributes"])), 2)
    return load_template(TEMPLATE).render(
        document=document,
        systems=[{"name": name, "colour": at % charts.PALETTE} for at, name in enumerate(document["systems"])],
        plots=[pareto_plot(document, *pair) for pair in pairs],
        frame=charts.FRAME,
        words=wording,
    )


def pareto_plot(document: Mapping[str, Any], first: int, second: int) -> dict[str, Any]:
    """Return the plot of one attribute against another, with the Pareto front of each system as a staircase.

    Axes span the observed scores, so different plots have different scales.
    """
    names = document["attributes"]
    reached = {
        name: [(mean[first], mean[second]) for mean in system["means"]] for name, system in document["systems"].items()
    }
    every = [point for points in reached.values() for point in points]
    across, up = (_axis([point[axis] for point in every]) for axis in (0, 1))
    return {
        "x_title": names[first],
        "y_title": names[second],
        "x_ticks": [{"at": _x(across, tick), "text": f"{100 * tick:.3g}"} for tick in across],
        "y_ticks": [{"at": _y(up, tick), "text": f"{100 * tick:.3g}"} for tick in up],
        "systems": [
            {
                "colour": at % charts.PALETTE,
                "marks": [
                    {"x": _x(across, x), "y": _y(up, y), "label": _label(names, preference)}
                    for (x, y), preference in zip(points, document["preferences"], strict=True)
                ],
                "steps": _stairs([(_x(across, x), _y(up, y)) for x, y in undominated(points)]),
            }
            for at, points in enumerate(reached.values())
        ],
    }


def undominated(points: Points) -> list[tuple[float, float]]:
    """Return the points that no other point dominates, from left to right.

    Examples:
        >>> undominated([(0.1, 0.9), (0.5, 0.5), (0.4, 0.4), (0.9, 0.1)])
        [(0.1, 0.9), (0.5, 0.5), (0.9, 0.1)]
    """
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, reverse=True):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front[::-1]


def _axis(values: Sequence[float]) -> list[float]:
    """Return six ticks, multiples of 0.01, that span all values."""
    low, high = int(100 * min(values)), -int(-100 * max(values) // 1)
    step = max(1, -(-(high - low) // 5))
    return [(low + step * index) / 100 for index in range(6)]


def _x(ticks: Sequence[float], value: float) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return charts.FRAME["left"] + share * (charts.FRAME["right"] - charts.FRAME["left"])


def _y(ticks: Sequence[float], value: float) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return charts.FRAME["bottom"] - share * (charts.FRAME["bottom"] - charts.FRAME["top"])


def _stairs(points: Points) -> str:
    """Return the staircase through points, given from left to right, as an SVG path."""
    first, *rest = points
    return f"M{first[0]:.1f} {first[1]:.1f}" + "".join(f"V{y:.1f}H{x:.1f}" for x, y in rest)


def _label(names: Sequence[str], preference: Sequence[float]) -> str:
    return ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, preference, strict=True) if weight)
