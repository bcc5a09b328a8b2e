"""Coordinates of the plots on the page, which the templates draw as inline SVG."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from .wording import MINUS

PLANE_WIDTH, PLANE_HEIGHT = 440.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 24.0, 18.0, 46.0
FRAME = {
    "width": PLANE_WIDTH,
    "height": PLANE_HEIGHT,
    "left": LEFT,
    "right": PLANE_WIDTH - RIGHT,
    "top": TOP,
    "bottom": PLANE_HEIGHT - BOTTOM,
}
POINT_RADIUS = 6.0
LABEL_HEIGHT = 16.0
LABEL_WIDTH = 90.0
PALETTE = 6  # number of colours in the style sheet


def rate_bar(interval: Mapping[str, Any]) -> dict[str, float]:
    """Return the marks of a rate on an axis from 0 to 100, in per cent of the axis width."""
    low, high = interval["low"], interval["high"]
    bar = {"low": 100 * low, "high": 100 * high, "at": 100 * interval["estimate"]}
    if "conservative" in interval:
        bar |= {"faint_low": 100 * interval["conservative"][0], "faint_high": 100 * interval["conservative"][1]}
    return bar


def plane(comparison: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the plot of harm (vertical) against over-refusal (horizontal), with arrows from system to system.

    None if the comparison lacks one of the two rates.
    """
    metrics = {metric["name"]: metric for metric in comparison["metrics"]}
    if not {"leak", "over_refusal"} <= metrics.keys():
        return None
    harm, refusal = metrics["leak"]["rates"], metrics["over_refusal"]["rates"]
    x_ticks = ticks(max(rate["high"] for rate in refusal.values()))
    y_ticks = ticks(max(rate["high"] for rate in harm.values()))

    def across(value: float) -> float:
        return _across(value / x_ticks[-1])

    def up(value: float) -> float:
        return _up(value / y_ticks[-1])

    points = [
        {
            "system": system,
            "colour": index % PALETTE,
            "x": across(refusal[system]["estimate"]),
            "y": up(harm[system]["estimate"]),
            "x_low": across(refusal[system]["low"]),
            "x_high": across(refusal[system]["high"]),
            "y_low": up(harm[system]["low"]),
            "y_high": up(harm[system]["high"]),
        }
        for index, system in enumerate(comparison["systems"])
    ]
    return {
        **FRAME,
        "points": _labelled(points),
        "arrows": [arrow for pair in pairwise(points) if (arrow := _arrow(*pair))],
        "x_ticks": [{"at": across(value), "text": f"{100 * value:g}"} for value in x_ticks],
        "y_ticks": [{"at": up(value), "text": f"{100 * value:g}"} for value in y_ticks],
    }


def reliability_plot(calibration: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the reliability diagram: observed (vertical) against predicted risk (horizontal), one point per bin.

    It shows the tokens with non-negligible risk, if there are any; None without a calibration.
    """
    if calibration is None:
        return None
    shown = calibration["total"][-1]
    marks = [(tick, f"{100 * tick:g}") for tick in ticks(1.0)]
    return {
        **FRAME,
        "name": shown["name"],
        "points": [
            {
                "x": _across(one["predicted"]),
                "y": _up(one["observed"]),
                "low": _up(one["low"]),
                "high": _up(one["high"]),
            }
            for one in shown["bins"]
        ],
        "x_ticks": [{"at": _across(tick), "text": text} for tick, text in marks],
        "y_ticks": [{"at": _up(tick), "text": text} for tick, text in marks],
    }


def _across(share: float) -> float:
    """Return the x coordinate of a share of the horizontal axis, with 0 at its left end."""
    return LEFT + share * (PLANE_WIDTH - LEFT - RIGHT)


def _up(share: float) -> float:
    """Return the y coordinate of a share of the vertical axis, with 0 at its lower end."""
    return PLANE_HEIGHT - BOTTOM - share * (PLANE_HEIGHT - TOP - BOTTOM)


def ticks(highest: float) -> list[float]:
    """Return 3 to 6 round tick values from 0 to at least `highest`, at most 1.

    Examples:
        >>> ticks(0.87), ticks(0.04)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 0.01, 0.02, 0.03, 0.04])
    """
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25):
        count = max(2, math.ceil(highest / step - 1e-9))
        if count <= 5:
            return [round(step * index, 4) for index in range(count + 1)]
    return [0.0, 0.25, 0.5, 0.75, 1.0]


def _labelled(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Set the label position of each point: beside it, away from the incoming arrow, not overlapping other labels."""
    placed: list[tuple[float, float]] = []
    for index, point in enumerate(points):
        on_left = _arrow_from_upper_right(points[index - 1], point) if index else False
        on_left = (on_left and point["x"] > LEFT + LABEL_WIDTH) or point["x"] > PLANE_WIDTH - LABEL_WIDTH
        point["anchor"] = "end" if on_left else "start"
        point["label_x"] = point["x"] + (-1 if on_left else 1) * (POINT_RADIUS + 5)
        y = point["y"] - POINT_RADIUS - 3
        while any(abs(y - other) < LABEL_HEIGHT and abs(point["label_x"] - x) < LABEL_WIDTH for x, other in placed):
            y -= LABEL_HEIGHT / 4
        point["label_y"] = y
        placed.append((point["label_x"], y))
    return points


def _arrow_from_upper_right(start: Mapping[str, Any], end: Mapping[str, Any]) -> bool:
    return bool(start["x"] > end["x"] and start["y"] < end["y"])


def _arrow(start: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the line between two points, shortened to their edges; None if they are too close to draw one."""
    run, rise = end["x"] - start["x"], end["y"] - start["y"]
    length = math.hypot(run, rise)
    if length < 4 * POINT_RADIUS:
        return None
    from_rim, to_rim = (POINT_RADIUS + 2) / length, 1 - (POINT_RADIUS + 5) / length
    return {
        "x1": start["x"] + from_rim * run,
        "y1": start["y"] + from_rim * rise,
        "x2": start["x"] + to_rim * run,
        "y2": start["y"] + to_rim * rise,
    }


def forest(effects: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the forest plot of preference effects on an axis symmetric around 0, in per cent of the axis width."""
    if not effects:
        return None
    bounds = [
        abs(limit)
        for one in effects
        for limit in (one["difference"]["low"], one["difference"]["high"])
        if limit is not None
    ]
    widest = ticks(max([0.01, *bounds]))[-1]

    def across(value: float | None, otherwise: float) -> float:
        return 50 + 50 * (otherwise if value is None else value / widest)

    return {
        "rows": [
            {
                "attribute": one["attribute"],
                "low": across(one["difference"]["low"], -1.0),
                "high": across(one["difference"]["high"], 1.0),
                "at": across(one["difference"]["estimate"], 0.0),
                "effect": one,
            }
            for one in effects
        ],
        "ticks": [
            {
                "at": 50 + 50 * share,
                "text": "0" if share == 0 else f"{'+' if share > 0 else MINUS}{100 * widest * abs(share):g}",
            }
            for share in (-1.0, -0.5, 0.0, 0.5, 1.0)
        ],
    }
