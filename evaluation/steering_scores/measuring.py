"""Measuring the steering of a bundle or steered model: every probe at every preference, and without steering."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.protocols import Judge
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.loop import generate
from prosocial.steering.decoding.reply import Reply

from ..judges.rehearsal import rehearse
from ..probes.probe import Probe
from ..sampling.systems import System
from .grid import LEVELS, PreferenceGrid
from .scores import score_grid
from .steering_scores_document import steering_document

UNSTEERED = 0.0  # with this reward scale, the decoding rule leaves the model's logits unchanged


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
    """Measure the steering of one system, with its gate and other defaults, and return the `steering_document`.

    Replies to a probe share their sampling noise at all preferences, so that differences are paired.

    Args:
        system: a bundle or steered model.
        probes: requests to answer.
        judge: judge that scores every attribute of the head.
        edge_levels: weights along each edge between two attributes; fewer levels need fewer replies.
        temperature: sampling temperature.
        seed: seed of the sampling noise and of the bootstrap.
        max_new_tokens: maximum length of a reply; None for the system's default.
        batch_size: most replies decoded at once.

    Raises:
        InputError: the system has no head, there are no probes, or the judge does not score an attribute.
    """
    if system.engine.config is None or not probes:
        raise InputError(
            f"steering should be measured on a steered bundle or model with at least one probe, found a {system.kind} "
            f"and {len(probes)} probes"
        )
    grid = PreferenceGrid(system.engine.config.attributes, edge_levels=edge_levels)
    rehearse(judge, [probe.messages for probe in probes], attributes=grid.attributes)
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
