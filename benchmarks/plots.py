"""The style of figures: transparent background, colours for light and dark pages, reproducible bytes."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

INK = "#7b818c"

mpl.rcParams |= {
    "svg.hashsalt": "prosocial",
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "sans-serif",
    "savefig.transparent": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
