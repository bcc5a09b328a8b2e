"""Measures whether resolving gradient conflicts between attributes helps a preference-conditioned reward model.

    python benchmarks/conflict_ablation.py --out runs/conflict --seeds 0,1,2,3,4,5,6,7,8,9
    python benchmarks/conflict_ablation.py --out runs/conflict --report docs/design

For each seed of the lab it generates the data, trains and edits the model and samples labelled pairs (reused by later
runs), then trains one reward model per method, all from the same adapter, on the same batches, for the same number of
steps. Each result is a row of `rows.jsonl`; existing rows are not measured again. Measured on held-out topics:

- rewards: the judge's mean score of every attribute over replies sampled under the guidance of the reward model, at 16
  preferences (corners, midpoints of two corners, uniform), with noise shared by all methods and preferences;
- hypervolume of these 16 reward vectors; the reference point is 0 for every attribute, scores are in [0, 1] and not
  normalised;
- worst attribute: the lowest pair accuracy of an attribute at its own corner;
- processor seconds of training.

Each method against `none`: mean difference over seeds with a 95 % t-interval, exact sign-flip test, Holm's correction.

A method may also increase the weight of the rewards' losses relative to the anchor. `--methods none@0.5` is a control
for that: a plain sum with another `anchor_weight`, compared with UPGrad in a separate table.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from transformers import DynamicCache

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.chat import ChatTokenizer
from prosocial.editing.checkpoints import load_model
from prosocial.evaluation.probes.probe import Probe, read_probes
from prosocial.evaluation.statistics import clustered_difference, holm
from prosocial.evaluation.steering_scores import hypervolume
from prosocial.recipes.lab.judge import LabJudge
from prosocial.recipes.reading.loading import load_recipe
from prosocial.recipes.steering.edit import edit_stages
from prosocial.recipes.steering.models import sample_replies
from prosocial.recipes.steering.reward import reward_stages
from prosocial.recipes.steering.schema import Recipe
from prosocial.recipes.steering.sources import base_source, data_stage
from prosocial.recipes.workflow.plan import plan_run
from prosocial.recipes.workflow.runner import execute
from prosocial.recipes.workflow.stage import Stage, StageContext, Upstream
from prosocial.training.reward.accuracy import pair_accuracy
from prosocial.training.reward.attributes import resolve_attributes
from prosocial.training.reward.conflict import CONFLICT_METHODS
from prosocial.training.reward.encoded_pairs import EncodedPairs
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.training.reward.pairs import label_pair, read_pairs, write_pairs
from prosocial.training.reward.settings import RewardTraining
from prosocial.training.reward.training import train_reward

KINDS = ("benign", "twin", "disclosure", "false_premise")
N_PAIRS_PER_KIND, N_REPLIES_PER_KIND = 60, 16
MAX_NEW_TOKENS = 64
BUDGET = (
    "reward.steps=140",
    "reward.anchor_weight=0.7",
)  # for every method: the quickstart's settings when the comparison began
METRICS = ("hypervolume", "worst_accuracy", "seconds")


@dataclass(frozen=True)
class World:
    """The model and data of one seed, shared by all methods."""

    recipe: Recipe
    edited: Path
    train: EncodedPairs
    held_out: EncodedPairs
    probes: list[Probe]


def main() -> None:
    """Measure the missing rows and print the tables; with --report, write table and plot for the documentation."""
    arguments, console = _arguments(), Console()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = AppendedRows(arguments.out / "rows.jsonl")
    rows = kept.rows
    done = {(row["seed"], row["preferences"], row["method"]) for row in rows}
    for seed in map(int, arguments.seeds.split(",") if arguments.seeds else ()):
        expected = [
            (seed, preferences, method)
            for preferences in arguments.preferences.split(",")
            for method in arguments.methods.split(",")
        ]
        missing = [key for key in expected if key not in done]
        world = _world(arguments.out / f"seed{seed}", seed, console) if missing else None
        for key in missing:
            assert world is not None
            row = _measured(world, *key)
            kept.append(row)
            rows.append(row)
            console.print(_line(row), highlight=False, soft_wrap=True)
    for preferences in sorted({row["preferences"] for row in rows}):
        chosen = [row for row in rows if row["preferences"] == preferences]
        table = comparisons(chosen, CONFLICT_METHODS, reference="none")
        print(f"\none preference per {preferences}, against none\n{markdown(table)}")
        for control in dict.fromkeys(row["method"] for row in chosen if "@" in row["method"]):
            print(f"\nagainst upgrad\n{markdown(comparisons(chosen, ['upgrad', control], reference='upgrad'))}")
        if arguments.report:
            (arguments.report / f"0005-conflict-{preferences}.svg").write_text(drawing(table), encoding="utf-8")


def _world(folder: Path, seed: int, console: Console) -> World:
    """Return the edited model and its labelled pairs, computed or from an earlier run."""
    recipe = load_recipe("quickstart", [f"seed={seed}", *BUDGET], model=Recipe)
    source, base_stages = base_source(recipe)
    pairs_stage = reward_stages(recipe)[0]
    held_out_stage = Stage(
        name="held-out-pairs",
        title="label pairs on held-out topics",
        run=_sample_held_out,
        inputs={"probes": Upstream("data", "probes.jsonl"), "edited": Upstream("edit")},
        parameters=pairs_stage.parameters,
        seed=seed,
    )
    stages = [data_stage(recipe), *base_stages, *edit_stages(recipe, source), pairs_stage, held_out_stage]
    result = execute(plan_run(stages, folder / "store"), console)
    edited = result.folder("edit")
    encoded = [
        EncodedPairs.from_pairs(
            read_pairs(result.folder(name) / "pairs.jsonl", attributes=recipe.attributes),
            tokenizer=ChatTokenizer(edited),
            attributes=recipe.attributes,
            max_tokens=recipe.reward.max_tokens,
        )
        for name in ("pairs", "held-out-pairs")
    ]
    probes = read_probes(result.folder("data") / "probes.jsonl")
    return World(recipe, edited, *encoded, _of_each_kind(probes, N_REPLIES_PER_KIND))


def _sample_held_out(context: StageContext) -> str:
    """Sample two replies to each of some held-out probes and label them."""
    probes = read_probes(context.inputs["probes"])
    prompts = [probe.messages for probe in _of_each_kind(probes, N_PAIRS_PER_KIND)]
    replies = [sample_replies(context, context.inputs["edited"], prompts, seed=context.seed + n) for n in (100, 101)]
    pairs = [
        label_pair(messages, first, second, judge=LabJudge(), attributes=context.parameters["attributes"])
        for messages, first, second in zip(prompts, *replies, strict=True)
        if first != second
    ]
    write_pairs(context.out / "pairs.jsonl", pairs)
    return f"{len(pairs)} pairs"


def _of_each_kind(probes: Sequence[Probe], count: int) -> list[Probe]:
    return [
        probe
        for kind in KINDS
        for probe in [each for each in probes if each.kind == kind and each.attack is None][-count:]
    ]


def _measured(world: World, seed: int, preferences: str, method: str) -> dict[str, Any]:
    """Train one reward model and measure it; `METHOD@WEIGHT` sets another anchor weight."""
    recipe, names = world.recipe, world.recipe.attributes
    settings = {key: getattr(recipe.reward, key) for key in RewardTraining.model_fields}
    conflict, _, anchor = method.partition("@")
    changed = {"conflict": conflict, "preferences": preferences, "log_every": recipe.reward.steps}
    changed |= {"anchor_weight": float(anchor)} if anchor else {}
    training = RewardTraining(**settings | changed)
    tokenizer = ChatTokenizer(world.edited)
    torch.manual_seed(seed)  # the same adapter for every method
    config = RewardConfig(attributes=tuple(names), **recipe.reward.adapter.model_dump())
    reward = RewardModel(load_model(world.edited), config)
    started = time.process_time()
    history = train_reward(
        reward,
        world.train,
        attributes=resolve_attributes(names, betas=recipe.reward.beta),
        training=training,
        pad_id=tokenizer.pad_id,
        seed=seed,
    )
    seconds = time.process_time() - started
    accuracy = pair_accuracy(reward, world.held_out, attributes=names, pad_id=tokenizer.pad_id)
    rewards = _rewards(reward, tokenizer, world, seed)
    shares = [record.conflicting_share for record in history if record.conflicting_share is not None]
    return {
        "seed": seed,
        "preferences": preferences,
        "method": method,
        "hypervolume": hypervolume(rewards.tolist(), [0.0] * len(rewards[0])),
        "worst_accuracy": min(value["corner"] for value in accuracy.values()),
        "seconds": seconds,
        "rewards": rewards.tolist(),
        "accuracy": accuracy,
        "conflicting_share": sum(shares) / len(shares),
        "n_conflicts_measured": len(shares),
    }


def preference_points(k: int) -> Tensor:
    """Return the corners, the midpoints of two corners, and the uniform preference, [P, k]."""
    corners = torch.eye(k)
    middles = [(corners[i] + corners[j]) / 2 for i, j in combinations(range(k), 2)]
    return torch.stack([*corners, *middles, torch.full((k,), 1 / k)])


def _rewards(reward: RewardModel, tokenizer: ChatTokenizer, world: World, seed: int) -> Tensor:
    """Return the judge's mean scores of guided replies at each preference, [P, k]."""
    judge, found = LabJudge(), []
    prompts = [tokenizer.encode_chat(probe.messages) for probe in world.probes]
    for preference in preference_points(len(world.recipe.attributes)):
        replies = guided_replies(reward, tokenizer, prompts, preference, world.recipe, seed)
        scores = [
            judge.judge(probe.messages, reply).attributes for probe, reply in zip(world.probes, replies, strict=True)
        ]
        found.append([sum(score[name] for score in scores) / len(scores) for name in world.recipe.attributes])
    return torch.tensor(found)


@torch.inference_mode()
def guided_replies(
    reward: RewardModel,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    preference: Tensor,
    recipe: Recipe,
    seed: int,
) -> list[str]:
    """Sample a reply per prompt from `z0 + (1 / beta) (log pi_p - log pi)` on the plausible set, as 2B batch rows."""
    n, length = len(prompts), max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_id] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]).repeat(2, 1)
    rows = torch.cat([torch.zeros(n, len(preference)), preference.expand(n, -1)])
    cache, generator = DynamicCache(), torch.Generator().manual_seed(seed)
    ended, drawn = torch.zeros(n, dtype=torch.bool), []
    for _ in range(MAX_NEW_TOKENS):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with reward.use(rows):
            output = reward.model(
                input_ids=ids.repeat(2, 1), attention_mask=mask, position_ids=positions, past_key_values=cache
            )
        own, adapted = output.logits[:, -1].float().chunk(2)
        guided = own + (adapted.log_softmax(-1) - own.log_softmax(-1)) / recipe.decoding.beta
        implausible = own < own.topk(recipe.decoding.plausible_k).values[:, -1:]
        noise = -torch.empty_like(own).exponential_(generator=generator).log()
        token = (guided.masked_fill(implausible, -torch.inf) + noise).argmax(-1)
        drawn.append(torch.where(ended, tokenizer.end_ids[0], token))
        ended |= torch.isin(token, torch.tensor(tokenizer.end_ids))
        if ended.all():
            break
        ids, mask = token[:, None], torch.cat([mask, torch.ones(2 * n, 1, dtype=mask.dtype)], dim=1)
    return [_until_end(row, tokenizer) for row in torch.stack(drawn, dim=1).tolist()]


def _until_end(ids: Sequence[int], tokenizer: ChatTokenizer) -> str:
    ends = [at for at, token in enumerate(ids) if token in tokenizer.end_ids]
    return tokenizer.decode(ids[: min(ends, default=len(ids))])


def comparisons(rows: Sequence[dict[str, Any]], methods: Sequence[str], *, reference: str) -> list[dict[str, Any]]:
    """Return the mean of each metric and method, and its difference from `reference`, over the complete seeds."""
    by_method = {
        method: {row["seed"]: row for row in rows if row["method"] == method}
        for method in methods
        if any(row["method"] == method for row in rows)
    }
    seeds = sorted(set.intersection(*(set(found) for found in by_method.values())))
    table = []
    for metric in METRICS if seeds else ():
        values = {method: [found[seed][metric] for seed in seeds] for method, found in by_method.items()}
        others = [method for method in values if method != reference]
        tests = dict(
            zip(others, holm([sign_flip(values[reference], values[method]) for method in others]), strict=True)
        )
        for method, found in values.items():
            against = None
            if method != reference:
                bounds = (-np.inf, np.inf)
                interval = clustered_difference(values[reference], found, seeds, bounds=bounds)
                ends = (interval.low, interval.high) if len(seeds) > 1 else (interval.estimate, interval.estimate)
                against = [interval.estimate, *ends]
            table.append(
                {
                    "metric": metric,
                    "method": method,
                    "n": len(seeds),
                    "mean": sum(found) / len(found),
                    "difference": against,
                    "p": tests.get(method),
                }
            )
    return table


def sign_flip(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the two-sided p-value of the mean paired difference under all changes of sign."""
    differences = np.subtract(after, before)
    signs = np.array(list(product((-1.0, 1.0), repeat=len(differences))))
    return float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean())


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """Return one row per method, one column per metric."""
    lines = [f"| method ({table[0]['n']} seeds) | hypervolume | worst attribute | seconds |", "|---|---|---|---|"]
    for method in dict.fromkeys(row["method"] for row in table):
        cells = [_cell(row) for row in table if row["method"] == method]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    digits = 1 if row["metric"] == "seconds" else 3
    text = f"{row['mean']:.{digits}f}"
    if row["difference"] is None:
        return text
    estimate, low, high = (f"{value:+.{digits}f}" for value in row["difference"])
    if row["n"] == 1:
        return f"{text}; {estimate}"
    return f"{text}; {estimate} ({low} to {high}), p {row['p']:.3f}"


def drawing(table: Sequence[dict[str, Any]]) -> str:
    """Return an SVG: differences from `none` with their intervals, one panel per metric."""
    panels = [[row for row in table if row["metric"] == metric and row["difference"]] for metric in METRICS]
    names = [row["method"] for row in panels[0]]
    width, height, left, line = 240, 40 + 24 * len(names), 84, 24
    marks = [f'<text x="4" y="{44 + line * at}">{name}</text>' for at, name in enumerate(names)]
    for number, panel in enumerate(panels):
        reach = max(abs(value) for row in panel for value in row["difference"]) or 1.0
        middle, start = left + width * number + width / 2, left + width * number + 10

        def across(value: float, middle: float = middle, reach: float = reach) -> float:
            return middle + value / reach * (width / 2 - 20)

        title = f"{panel[0]['metric'].replace('_', ' ')}, difference from none"
        marks.append(f'<text x="{start}" y="14">{title}</text>')
        marks.append(f'<line x1="{middle}" x2="{middle}" y1="24" y2="{height}" stroke="#999"/>')
        marks.append(f'<text x="{start}" y="{height + 14}">{-reach:.3g}</text>')
        marks.append(f'<text x="{start + width - 30}" y="{height + 14}" text-anchor="end">{reach:.3g}</text>')
        for at, row in enumerate(panel):
            estimate, low, high = map(across, row["difference"])
            y = 40 + line * at
            marks.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#36c" stroke-width="2"/>')
            marks.append(f'<circle cx="{estimate:.1f}" cy="{y}" r="4" fill="#36c"/>')
    size = f'width="{left + width * len(panels)}" height="{height + 22}"'
    style = 'font-family="sans-serif" font-size="11" fill="#7b818c"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(marks) + "\n</svg>\n"


def _line(row: dict[str, Any]) -> str:
    return (
        f"seed {row['seed']} {row['preferences']:5} {row['method']:8} hypervolume {row['hypervolume']:.4f} "
        f"worst {row['worst_accuracy']:.3f} seconds {row['seconds']:.1f} conflicts {row['conflicting_share']:.0%}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for models and rows.jsonl; existing results are reused"
    )
    parser.add_argument("--seeds", default="", help="separated by commas; none: only print existing results")
    parser.add_argument("--methods", default=",".join(CONFLICT_METHODS), help="separated by commas (default: all)")
    parser.add_argument(
        "--preferences", default="pair", help="pair, batch or pair,batch: the unit that shares one preference"
    )
    parser.add_argument("--report", type=Path, help="folder to write the plots to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
