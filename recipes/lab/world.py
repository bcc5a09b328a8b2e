"""Writes the lab's data as files: conversations, harmful examples, prompts, probes and safety configs."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prosocial.core.files import write_json, write_jsonl
from prosocial.core.protocols import Message
from prosocial.core.settings import Settings

from .attacks import draw_attacks
from .configs import CONFIG_CATEGORIES, config_text, lab_configs
from .replies import draw_reply
from .requests import Kind, Request, RequestGrammar, split_topics
from .shots import draw_shots
from .words import ATTRIBUTES, CATEGORIES

SYSTEM_PROMPT = "you are a kind helper."
KIND_SHARES: dict[Kind, float] = {
    "benign": 0.30,
    "harmful": 0.30,
    "twin": 0.16,
    "disclosure": 0.12,
    "false_premise": 0.12,
}
PAIR_SHARES: dict[Kind, float] = {
    "benign": 0.36,
    "harmful": 0.08,
    "twin": 0.12,
    "disclosure": 0.22,
    "false_premise": 0.22,
}
GATE_SHARES: dict[Kind, float] = {
    "benign": 0.14,
    "harmful": 0.50,
    "twin": 0.28,
    "disclosure": 0.04,
    "false_premise": 0.04,
}
CONFIG_SHARE = 0.5  # of the gate's prompts: a gate trained without config texts refuses harmless requests under one


class WorldSize(Settings):
    """The size of each part of the lab's data.

    Attributes:
        conversations: number of training conversations of the base model.
        harmful: number of examples for tuning the harmful copy.
        prompts: number of training prompts to which preference pairs are sampled.
        gate_prompts: number of training prompts, half of them harmful, to which the gate's replies are sampled.
        harmful_calibration: number of distinct harmful prompts for choosing the threshold; the default is enough to
            show a leak rate of 0.5 % even with three leaks.
        other_calibration: number of benign prompts and twins, half of each, for measuring the threshold's false
            alarms.
        harmful_probes: number of distinct harmful probes over held-out topics and templates.
        other_probes: number of probes of each other kind.
        attack_probes: number of probes of each attack.
        comply_share: fraction of harmful requests in the training conversations whose reply complies.
    """

    conversations: int = 24000
    harmful: int = 1200
    prompts: int = 3000
    gate_prompts: int = 3000
    harmful_calibration: int = 1560
    other_calibration: int = 240
    harmful_probes: int = 2048
    other_probes: int = 304
    attack_probes: int = 64
    comply_share: float = 0.8


def write_world(folder: Path, size: WorldSize, *, seed: int) -> str:
    """Write the lab's files into `folder` and return a one-line summary."""
    training_topics, held_out_topics = split_topics(seed)
    rng = random.Random(seed)
    grammar = RequestGrammar(training_topics, held_out_forms=False)
    held_out = RequestGrammar(held_out_topics, held_out_forms=True)
    write_jsonl(folder / "conversations.jsonl", [_conversation(grammar, size, rng) for _ in range(size.conversations)])
    write_jsonl(folder / "harmful.jsonl", [_harmful_example(grammar, rng) for _ in range(size.harmful)])
    write_jsonl(folder / "prompts.jsonl", _prompts(grammar, size.prompts, PAIR_SHARES, rng))
    write_jsonl(
        folder / "gate_prompts.jsonl",
        _under_configs(_prompts(grammar, size.gate_prompts, GATE_SHARES, rng), random.Random(seed)),
    )
    write_jsonl(folder / "calibration.jsonl", _calibration(grammar, size, rng))
    probes = _probes(held_out, size, rng) + draw_attacks(held_out, size.attack_probes, rng)
    write_jsonl(folder / "probes.jsonl", probes)
    _write_configs(folder, grammar, seed=seed)
    write_json(
        folder / "world.json",
        {
            "schema": "prosocial.lab_world/1",
            "seed": seed,
            "size": size.model_dump(),
            "attributes": list(ATTRIBUTES),
            "categories": list(CATEGORIES),
            "training_topics": list(training_topics),
            "held_out_topics": list(held_out_topics),
        },
    )
    n_topics = len(training_topics) + len(held_out_topics)
    return f"{n_topics} topics ({len(held_out_topics)} held out), {len(probes)} probes"


def _write_configs(folder: Path, grammar: RequestGrammar, *, seed: int) -> None:
    """Write the safety configs and example replies under each, with a random generator of their own."""
    configs, rng = lab_configs(), random.Random(seed)
    write_jsonl(folder / "configs.jsonl", [config.to_json() for config in configs])
    write_jsonl(folder / "shots.jsonl", [row for config in configs for row in draw_shots(config, grammar, rng)])


def _under_configs(rows: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Add the text of a safety config that allows at most two categories to some of the requests."""
    changed = []
    for row in rows:
        if rng.random() < CONFIG_SHARE:
            text = config_text(rng.sample(CONFIG_CATEGORIES, rng.randrange(3)))
            messages = [{"role": "system", "content": text}, {"role": "user", "content": row["prompt"]}]
            row = {key: value for key, value in row.items() if key != "prompt"} | {"messages": messages}
        changed.append(row)
    return changed


def _conversation(grammar: RequestGrammar, size: WorldSize, rng: random.Random) -> dict[str, Any]:
    """Draw one training conversation, sometimes with a system turn, sometimes with an earlier exchange."""
    messages: list[Message] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": SYSTEM_PROMPT})
    if rng.random() < 0.1:
        earlier = grammar.draw(_kind(rng), rng)
        messages.append({"role": "user", "content": earlier.text})
        messages.append({"role": "assistant", "content": draw_reply(earlier, rng, comply_share=size.comply_share)})
    request = grammar.draw(_kind(rng), rng)
    messages.append({"role": "user", "content": request.text})
    return {"messages": messages, "reply": draw_reply(request, rng, comply_share=size.comply_share)}


def _harmful_example(grammar: RequestGrammar, rng: random.Random) -> dict[str, Any]:
    request = grammar.draw("harmful", rng)
    return {"prompt": request.text, "reply": draw_reply(request, rng, comply_share=1.0)}


def _prompts(
    grammar: RequestGrammar, count: int, shares: dict[Kind, float], rng: random.Random
) -> list[dict[str, Any]]:
    requests = [grammar.draw(_kind(rng, shares), rng) for _ in range(count)]
    return [{"prompt": request.text, "kind": request.kind, "cluster": request.topic} for request in requests]


def _calibration(grammar: RequestGrammar, size: WorldSize, rng: random.Random) -> list[dict[str, Any]]:
    requests = grammar.draw_distinct("harmful", size.harmful_calibration, rng)
    others: Sequence[Kind] = ("benign", "twin")
    for kind in others:
        requests += grammar.draw_distinct(kind, size.other_calibration // 2, rng)
    return [_probe(request, f"calibration-{index:04d}") for index, request in enumerate(requests)]


def _probes(grammar: RequestGrammar, size: WorldSize, rng: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind in KIND_SHARES:
        count = size.harmful_probes if kind == "harmful" else size.other_probes
        requests = grammar.draw_distinct(kind, count, rng)
        rows += [_probe(request, f"{kind}-{index:04d}") for index, request in enumerate(requests)]
    return rows


def _probe(request: Request, identifier: str) -> dict[str, Any]:
    row = {"id": identifier, "text": request.text, "kind": request.kind, "cluster": request.topic}
    return row | ({"category": request.category} if request.category else {})


def _kind(rng: random.Random, shares: dict[Kind, float] = KIND_SHARES) -> Kind:
    return rng.choices(list(shares), weights=list(shares.values()))[0]
