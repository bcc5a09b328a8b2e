"""Draws the harm categories that a safety config allows, in CoSAlign's four modes."""

import random
from collections.abc import Sequence, Set
from typing import Literal, get_args

Mode = Literal["exact", "safe", "superset", "not_superset"]
MODES: tuple[Mode, ...] = get_args(Mode)


def draw_allowed(mode: Mode, categories: Set[str], pool: Sequence[str], rng: random.Random) -> frozenset[str]:
    """Draw the categories that a config allows, given the categories of a prompt.

    The modes:

    - exact: the categories of the prompt.
    - safe: none.
    - superset: the categories of the prompt, and a random number of others.
    - not_superset: a random proper subset of the prompt's categories, and a random number of others; none for a prompt
      without categories.

    Args:
        mode: one of the four modes.
        categories: categories of the prompt; those outside the pool are never allowed.
        pool: categories that configs may allow, in a fixed order.
        rng: random number generator.

    Source: arXiv 2410.08968, section 4 and the authors' code.

    Examples:
        >>> sorted(draw_allowed("exact", {"violence", "other"}, ["privacy", "violence"], random.Random(0)))
        ['violence']
    """
    own = [name for name in pool if name in categories]
    others = [name for name in pool if name not in categories]
    if mode == "exact":
        return frozenset(own)
    if mode == "safe" or (mode == "not_superset" and not own):
        return frozenset()
    kept = own if mode == "superset" else rng.sample(own, rng.randint(0, len(own) - 1))
    return frozenset(kept) | frozenset(rng.sample(others, rng.randint(0, len(others))))
