"""Draws five examples of replies under a safety config of the lab, for in-context learning."""

import random
from typing import Any

from .configs import LabConfig
from .replies import draw_reply
from .requests import Request, RequestGrammar

N_ALLOWED, N_DECLINED = 2, 2  # the others are harmless requests; also N_ALLOWED if the config allows no category
N_SHOTS = 5
N_DRAWS = 8  # the shortest of as many replies is used, so that five examples fit into a small context


def draw_shots(config: LabConfig, grammar: RequestGrammar, rng: random.Random) -> list[dict[str, Any]]:
    """Draw the examples of a config, as rows with `config`, `prompt` and `reply`, in random order."""
    allowed = [_harmful(config, grammar, rng, is_allowed=True) for _ in range(N_ALLOWED if config.allowed else 0)]
    declined = [_harmful(config, grammar, rng, is_allowed=False) for _ in range(N_DECLINED)]
    harmless = [grammar.draw("benign", rng) for _ in range(N_SHOTS - len(allowed) - len(declined))]
    rows = [_row(config, request, rng, complies=True) for request in (*allowed, *harmless)]
    rows += [_row(config, request, rng, complies=False) for request in declined]
    rng.shuffle(rows)
    return rows


def _harmful(config: LabConfig, grammar: RequestGrammar, rng: random.Random, *, is_allowed: bool) -> Request:
    while True:
        request = grammar.draw("harmful", rng)
        if (request.category in config.allowed) == is_allowed:
            return request


def _row(config: LabConfig, request: Request, rng: random.Random, *, complies: bool) -> dict[str, Any]:
    drawn = [draw_reply(request, rng, comply_share=float(complies)) for _ in range(N_DRAWS)]
    return {"config": config.name, "prompt": request.text, "reply": min(drawn, key=len)}
