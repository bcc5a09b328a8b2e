"""Measuring the steering of a bundle or a steered model: every probe at every preference, and without steering."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.protocols import Judge
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.reply import Reply

from ..probes.probe import Probe
from ..sampling.systems import System
from .grid import LEVELS, PreferenceGrid
from .scores import score_grid
from .steering_scores_document import steering_document

UNSTEERED = 0.0  # the reward scale at which the rule leaves the model's own logits as they are


def measure_steering(
    system: System,
    probes: Sequence[Probe],
    *,
    judge: Judge,
    edge_levels: Sequence[float] = LEVELS,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int | None = None,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Return the document of `steering_document` on one system; its gate and defaults stay as they are.

    Replies to one probe share their noise over all preferences, so that differences are paired.

    Args:
        system: a bundle or a steered model. judge: must score every attribute of the head.
        edge_levels: weights between each two attributes; fewer of them cost fewer replies.

    Raises:
        InputError: the system has no head, there are no probes, or the judge leaves an attribute out.
    """
    if system.engine.config is None or not probes:
        raise InputError(
            f"steering should be measured on a bundle or a steered model with probes, found a {system.kind} and "
            f"{len(probes)} probes"
        )
    grid = PreferenceGrid(system.engine.config.attributes, edge_levels=edge_levels)
    options = {"temperature": temperature, "seed": seed, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
    steered, unsteered = (
        score_grid(name, grid.attributes, points, probes, answer=partial(_answer, system, scale, options), judge=judge)
        for name, points, scale in ((system.kind, grid.points, None), ("unsteered", grid.points[:1], UNSTEERED))
    )
    return steering_document({system.kind: steered}, grid, unsteered=unsteered, seed=seed)


def _answer(
    system: System,
    reward_scale: float | None,
    options: Mapping[str, Any],
    probes: Sequence[Probe],
    preferences: Sequence[Mapping[str, float]],
) -> list[Reply]:
    return generate(
        system.engine,
        system.tokenizer,
        [probe.messages for probe in probes],
        steering=[Steering(preference=one, reward_scale=reward_scale) for one in preferences],
        prefill=[probe.prefill for probe in probes],
        row_keys=[probe.id for probe in probes],
        **options,
    )
