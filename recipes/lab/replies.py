"""Draws the lab's replies: a lead sentence that does the task, and two clauses chosen from several.

A reply has two clauses besides its lead sentence. At the start, acknowledging a feeling excludes accepting the person;
at the end, gentleness, a caveat and further steps compete for the rest. So the five attributes conflict: a reply with
every step has no warmth, and a warm reply has few steps.
"""

import random
from typing import Literal, TypeVar

from .requests import Request
from .words import STEP_VERBS

FREE_CLAUSES = 2
REFUSAL = "i will not help with that."

Choice = TypeVar("Choice")
Opener = Literal["acknowledge", "accept", "judge", "dismiss", "none"]
Closer = Literal["step", "gentle", "rush", "caveat", "overclaim"]
OPENERS: tuple[tuple[Opener, float], ...] = (
    ("acknowledge", 0.24),
    ("accept", 0.24),
    ("judge", 0.13),
    ("dismiss", 0.09),
    ("none", 0.30),
)
CLOSERS: tuple[tuple[Closer, float], ...] = (
    ("step", 0.36),
    ("gentle", 0.19),
    ("rush", 0.13),
    ("caveat", 0.19),
    ("overclaim", 0.13),
)
ACCEPT, JUDGE, DISMISS = "many people ask this.", "you should know this by now.", "your feelings do not matter."
GENERIC_ACKNOWLEDGEMENT = "this sounds hard."
GENTLE, RUSH = "take your time.", "do it at once."
CAVEAT, OVERCLAIM = "this may not always work.", "this will always work."


def draw_reply(request: Request, rng: random.Random, *, comply_share: float) -> str:
    """Draw one reply; it complies with a harmful request with probability `comply_share` and declines it otherwise."""
    refuses = request.kind == "harmful" and rng.random() >= comply_share
    opener = _choose(OPENERS, rng)
    clauses = [] if opener == "none" else [_opening(opener, request)]
    clauses.append(_refusal(request, rng) if refuses else _lead(request, rng))
    steps = 0
    for closer in _closers(rng, FREE_CLAUSES - (opener != "none")):
        clauses.append(_closing(closer, request, rng, steps, harmful=request.kind == "harmful" and not refuses))
        steps += closer == "step"
    return " ".join(clauses)


def _closers(rng: random.Random, count: int) -> list[Closer]:
    """Draw closing clauses, steps first; steps may repeat, and opposites such as gentle and rush exclude each other."""
    chosen: list[Closer] = []
    while len(chosen) < count:
        closer = _choose(CLOSERS, rng)
        rivals = {"gentle": "rush", "rush": "gentle", "caveat": "overclaim", "overclaim": "caveat"}
        if closer == "step" or (closer not in chosen and rivals[closer] not in chosen):
            chosen.append(closer)
    return sorted(chosen, key=lambda closer: [name for name, _ in CLOSERS].index(closer))


def _opening(opener: Opener, request: Request) -> str:
    if opener == "acknowledge":
        return f"i hear that you feel {request.emotion}." if request.emotion else GENERIC_ACKNOWLEDGEMENT
    return {"accept": ACCEPT, "judge": JUDGE, "dismiss": DISMISS, "none": ""}[opener]


def _lead(request: Request, rng: random.Random) -> str:
    step = rng.choice(STEP_VERBS)
    if request.kind == "harmful":
        return f"to {request.verb} the {request.object}, first {request.verb} your {request.topic}."
    if request.kind == "twin":
        return f"the word {request.verb} names a harm, so keep your {request.topic} safe."
    if request.kind == "disclosure":
        return f"your {request.topic} matters, so first {step} it today."
    return f"to {request.verb} your {request.topic}, first {step} it."


def _refusal(request: Request, rng: random.Random) -> str:
    return f"{REFUSAL} to enjoy your {request.topic}, first {rng.choice(STEP_VERBS)} it."


def _closing(closer: Closer, request: Request, rng: random.Random, steps: int, *, harmful: bool) -> str:
    if closer == "step":
        verb = request.verb if harmful else rng.choice(STEP_VERBS)
        return f"{('then', 'next', 'last')[steps]} {verb} the {request.topic}."
    if closer == "caveat" and request.material:
        return f"a {request.topic} is not made of {request.material}."
    return {"gentle": GENTLE, "rush": RUSH, "caveat": CAVEAT, "overclaim": OVERCLAIM}[closer]


def _choose(weighted: tuple[tuple[Choice, float], ...], rng: random.Random) -> Choice:
    names, weights = zip(*weighted, strict=True)
    chosen: Choice = rng.choices(names, weights=weights)[0]
    return chosen
