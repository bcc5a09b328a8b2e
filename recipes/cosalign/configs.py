"""Draws safety configs for each prompt: some to sample replies under, others to build preference pairs for."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from prosocial.core.settings import Count, Settings

from .config_sampling import MODES, Mode, draw_allowed
from .config_text import ConfigWording
from .rows import Row, chance

Purpose = Literal["reply", "pair"]


class DrawSettings(Settings):
    """The number of configs drawn for each prompt.

    Attributes:
        replies: number of configs that candidate replies are sampled under, by mode.
        pairs: number of configs that preference pairs are built for, by mode.
    """

    replies: dict[Mode, Count] = Field(default={"superset": 4, "not_superset": 4})
    pairs: dict[Mode, Count] = Field(default=dict.fromkeys(MODES, 1))


def draw_configs(
    prompt: Row,
    settings: DrawSettings,
    *,
    pool: Sequence[str],
    definitions: Mapping[str, str],
    wording: ConfigWording,
    seed: int,
) -> list[Row]:
    """Return the configs of one prompt (`id`, `harms`) as rows of `prompt`, `purpose`, `mode`, `allowed`, `system`."""
    rows: list[Row] = []
    counts_by_purpose: dict[Purpose, Mapping[Mode, int]] = {"reply": settings.replies, "pair": settings.pairs}
    for purpose, counts in counts_by_purpose.items():
        for mode in (mode for mode, count in counts.items() for _ in range(count)):
            rng = chance(seed, prompt["id"], purpose, str(len(rows)))
            allowed = draw_allowed(mode, set(prompt["harms"]), pool, rng)
            text = wording.write(allowed, definitions, rng)
            origin = {"prompt": prompt["id"], "purpose": purpose, "mode": mode}
            rows.append(origin | {"allowed": sorted(allowed), "system": text})
    return rows


def under_config(prompt: Row, system: str) -> list[dict[str, str]]:
    """Return a prompt's conversation with a config as its system message, replacing any other."""
    turns = [turn for turn in prompt["messages"] if turn["role"] != "system"]
    return [{"role": "system", "content": system}, *turns] if system else turns
