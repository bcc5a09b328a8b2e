"""Measures a recipe's model and turns the measurement into estimates of its stages, for `run --dry-run`."""

from prosocial.core.chat import ChatTokenizer
from prosocial.core.placement import Placement
from prosocial.editing.checkpoints import Checkpoint, resolve_model

from ..workflow.stage import Stage
from .schema import FileData, Recipe
from .speed import measure_speed
from .workload import Workload, data_lengths, with_measured

LONGEST_TOKENS = 512  # of a measured row


def measure(recipe: Recipe, stages: list[Stage]) -> tuple[list[Stage], str] | None:
    """Return the stages with measured estimates, and a line on the speed; None where the data are the lab's.

    Raises:
        InputError: a data file is malformed.
    """
    if not isinstance(recipe.data, FileData) or not isinstance(recipe.model, str):
        return None
    folder = resolve_model(recipe.model)
    lengths = data_lengths(recipe.data, ChatTokenizer(folder))
    n_tokens = max(8, min(LONGEST_TOKENS, round(max(rows.tokens for rows in lengths.values()))))
    placement = Placement.choose(recipe.device, recipe.dtype)
    exact = speed = measure_speed(folder, placement, n_tokens=n_tokens)
    if placement.dtype != "float32":
        exact = measure_speed(folder, Placement(placement.device), n_tokens=n_tokens, trains=False)
    work = Workload(recipe, Checkpoint.open(folder), lengths, speed, exact)
    return with_measured(stages, work.estimates()), f"measured on {placement.device} in {placement.dtype}: {speed}"
