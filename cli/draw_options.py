"""The options with which every command that measures a model draws its replies: one name and one default each."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import typer

Probe = TypeVar("Probe")
HIGHEST_SEED = 2**32 - 1  # numpy takes no higher one
DRAW_TEMPERATURE = 1.0  # the model's own distribution, as in the report of a run


def _usable(value: float) -> float:
    from prosocial.core.settings import usable_temperature

    if value == float("inf"):
        raise typer.BadParameter("should be a finite number")
    try:
        return usable_temperature(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Seed = Annotated[int, typer.Option("--seed", min=0, max=HIGHEST_SEED, help="Seed of the replies that are drawn.")]
TrainingSeed = Annotated[
    int, typer.Option("--seed", min=0, max=HIGHEST_SEED, help="Seed of everything that is drawn at random.")
]
DrawTemperature = Annotated[
    float,
    typer.Option(
        "--temperature",
        min=0.0,
        callback=_usable,
        help="Of the replies: 1 draws from the model as it is, 0 takes its likeliest token.",
    ),
]
DrawMaxNewTokens = Annotated[
    int | None,
    typer.Option("--max-new-tokens", min=1, help="Most tokens of a reply. [default: the smallest of the models']"),
]
DrawBatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Replies drawn at once; they are the same.")]


Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Use this many probes, spread evenly over the file. [default: all]"),
]


def spread(probes: Sequence[Probe], limit: int | None) -> list[Probe]:
    """Return `limit` probes spread evenly over the set, or all.

    Examples:
        >>> spread([1, 2, 3, 4], 2)
        [1, 3]
    """
    if limit is None or limit >= len(probes):
        return list(probes)
    return [probes[at * len(probes) // limit] for at in range(limit)]


def drawn_line(temperature: float, seed: int, max_new_tokens: int | None = None) -> str:
    """Return one line that says how replies were drawn.

    Examples:
        >>> drawn_line(1.0, 0, 64)
        'replies drawn at temperature 1, seed 0, at most 64 tokens'
    """
    how = f"drawn at temperature {temperature:g}, seed {seed}" if temperature else "greedy (temperature 0)"
    return f"replies {how}" + (f", at most {max_new_tokens} tokens" if max_new_tokens else "")
