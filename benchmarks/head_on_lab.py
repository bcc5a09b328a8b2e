"""Compares the head with its teacher and with one reward model per attribute, on the lab's held-out topics.

    python benchmarks/head_on_lab.py --out runs/head --seeds 0,1,2,3,4,5,6,7,8,9
    python benchmarks/head_on_lab.py --out runs/head --report

For each seed, the quickstart's stages compute the base, the edit, the pairs, the reward model and the head; then one
reward model per attribute is trained in the same way, with as many steps each (GenARM, which so gets k times the
training). Six systems answer the same probes at every point of a preference grid, with the same noise and plausible
set: the edited model alone, the head in torch, a head with a mixture gain, their teacher (PARM's model, the log-ratio
that the head is distilled from), and the separate models as published and as a log-ratio. The lab's judge scores every
reply.

One JSON line per seed and system is appended to `scores.jsonl`; existing rows are not measured again. Then it prints
hypervolume, mean inner product, the head's share of the teacher's hypervolume and of its gain at every corner, and the
effect of every step of every weight. Scores are in [0, 1] and the hypervolume's reference point is 0 on every axis. A
second, normalised hypervolume scales each axis from the lowest to the highest mean of any system, with the reference
point a tenth below the lowest. Intervals: 95 %, hierarchical bootstrap over seeds and topics.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.chat import ChatTokenizer
from prosocial.core.files import read_jsonl
from prosocial.editing.checkpoints import load_model
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.evaluation.guided import GuidedEngine
from prosocial.evaluation.probes.probe import Probe, read_probes
from prosocial.evaluation.statistics import clustered_difference
from prosocial.evaluation.steering_scores import (
    GridScores,
    PreferenceGrid,
    hierarchical_bootstrap,
    hypervolume,
    mean_inner_product,
    monotone_steps,
    score_grid,
)
from prosocial.evaluation.steering_scores.bootstrap import Draw
from prosocial.evaluation.steering_scores.monotonicity import is_monotone
from prosocial.recipes.lab.judge import LabJudge
from prosocial.recipes.reading.loading import load_recipe
from prosocial.recipes.steering.edit import edit_stages
from prosocial.recipes.steering.head import head_stage
from prosocial.recipes.steering.reward import reward_stages
from prosocial.recipes.steering.schema import Recipe
from prosocial.recipes.steering.sources import base_source, data_stage
from prosocial.recipes.workflow.plan import plan_run
from prosocial.recipes.workflow.runner import RunResult, execute
from prosocial.recipes.workflow.stage import Stage, StageContext, Upstream
from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import Steering
from prosocial.steering.decoding.loop import generate
from prosocial.steering.head import CompactHead
from prosocial.steering.steered_model import SteeredModel
from prosocial.steering.torch_engine import PlainEngine, SteeredEngine
from prosocial.training.reward import RewardModel
from prosocial.training.reward.pairs import read_pairs, write_pairs

UNSTEERED, HEAD, TEACHER = "unsteered", "head", "teacher"
GAIN = "head with mixture gain"
SEPARATE, PUBLISHED = "separate models", "separate models, as published"
SYSTEMS = (UNSTEERED, HEAD, TEACHER, GAIN, PUBLISHED, SEPARATE)
KINDS = ("benign", "disclosure", "false_premise")
EDGE_LEVELS = (0.0, 0.5, 1.0)
TEMPERATURE, MAX_NEW_TOKENS, BATCH_SIZE = 1.0, 64, 512

MARGIN = 0.1  # distance of the reference point below the lowest score of any system, as a fraction of the axis

Runs = Mapping[str, Sequence[GridScores]]
Volume = Callable[[NDArray[np.float64]], float]


def main() -> None:
    """Measure every seed, one after the other, and print the figures of all measured seeds."""
    arguments, console = _arguments(), Console(width=140)
    scores = arguments.out / "scores.jsonl"
    for seed in () if arguments.report else map(int, arguments.seeds.split(",")):
        measure_seed(seed, arguments, scores, console)
    print_report(scores, draws=arguments.draws)


def measure_seed(seed: int, arguments: argparse.Namespace, scores: Path, console: Console) -> None:
    """Compute the stages of a seed, and append the scores of every system that has none yet."""
    rows = AppendedRows(scores)
    done = {row["system"] for row in rows.rows if row["seed"] == seed}
    missing = [name for name in arguments.systems.split(";") if name not in done]
    if not missing:
        return
    recipe = load_recipe("quickstart", [f"seed={seed}", *arguments.set], model=Recipe)
    result = execute(plan_run(stages_of(recipe, missing), arguments.out / f"seed{seed}"), console)
    grid = PreferenceGrid(recipe.attributes, edge_levels=EDGE_LEVELS)
    probes = chosen_probes(result.folder("data") / "probes.jsonl", arguments.probes)
    for name in missing:
        started = time.perf_counter()
        found = measure_system(name, recipe, result, grid, probes)
        row = {"seed": seed, "seconds": time.perf_counter() - started, **found.to_json()}
        rows.append(row)
        console.print(f"seed {seed}, {name}: {len(found.preferences)} preferences in {row['seconds']:.0f} s")


def stages_of(recipe: Recipe, systems: Sequence[str]) -> list[Stage]:
    """Return the quickstart's stages up to the head, plus a reward model per attribute if a system needs them."""
    source, base_stages = base_source(recipe)
    pairs, reward = reward_stages(recipe)
    names = recipe.attributes if {SEPARATE, PUBLISHED} & set(systems) else ()
    separate = [stage for name in names for stage in separate_stages(name, reward)]
    head = head_stage(recipe)
    with_gain = replace(head, name="head-gain", parameters={**head.parameters, "mixture_gain": True})
    heads = [head, with_gain] if GAIN in systems else [head]
    return [data_stage(recipe), *base_stages, *edit_stages(recipe, source), pairs, reward, *heads, *separate]


def separate_stages(attribute: str, reward: Stage) -> list[Stage]:
    """Return the stages that train a reward model of one attribute with the settings of the joint one."""
    slug = attribute.replace("_", "-")
    select = Stage(
        name=f"pairs-{slug}",
        title=f"select the labels of {attribute}",
        run=_one_attribute,
        inputs={"pairs": Upstream("pairs")},
        parameters={"attribute": attribute, "attributes": reward.parameters["attributes"]},
    )
    train = replace(
        reward,
        name=f"reward-{slug}",
        inputs={**reward.inputs, "pairs": Upstream(select.name)},
        parameters={**reward.parameters, "attributes": [attribute]},
    )
    return [select, train]


def _one_attribute(context: StageContext) -> str:
    attribute = context.parameters["attribute"]
    pairs = read_pairs(context.inputs["pairs"] / "pairs.jsonl", attributes=context.parameters["attributes"])
    kept = [replace(pair, labels={attribute: pair.labels.get(attribute, "missing")}) for pair in pairs]
    write_pairs(context.out / "pairs.jsonl", kept)
    return f"{sum(pair.labels[attribute] in ('first', 'second') for pair in kept)} labels"


def chosen_probes(path: Path, count: int) -> list[Probe]:
    """Return probes of held-out topics, the same number of each kind on which attributes can be scored."""
    by_kind = [[probe for probe in read_probes(path) if probe.kind == kind] for kind in KINDS]
    return [probe for found in by_kind for probe in found[: count // len(KINDS)]]


def measure_system(
    name: str, recipe: Recipe, result: RunResult, grid: PreferenceGrid, probes: Sequence[Probe]
) -> GridScores:
    """Score one system's replies to the probes at every preference; the unsteered one only at the first."""
    engine, tokenizer = open_engine(name, recipe, result), ChatTokenizer(result.folder("edit"))

    def answer(chosen: Sequence[Probe], preferences: Sequence[Mapping[str, float]]) -> list[Any]:
        return generate(
            engine,
            tokenizer,
            [probe.messages for probe in chosen],
            steering=None if name == UNSTEERED else [Steering(preference=one) for one in preferences],
            row_keys=[probe.id for probe in chosen],
            temperature=TEMPERATURE,
            seed=recipe.seed + 50,
            max_new_tokens=MAX_NEW_TOKENS,
            batch_size=BATCH_SIZE,
        )

    points = grid.points[:1] if name == UNSTEERED else grid.points
    return score_grid(name, grid.attributes, points, probes, answer=answer, judge=LabJudge())


def open_engine(name: str, recipe: Recipe, result: RunResult) -> Any:
    """Return the engine of one system."""
    edited, decoding = result.folder("edit"), recipe.decoding
    if name == UNSTEERED:
        return PlainEngine(load_model(edited))
    config = DecodingConfig(
        attributes=list(recipe.attributes),
        categories=["other"],
        plausible_k=decoding.plausible_k,
        beta=decoding.beta,
    )
    if name in (HEAD, GAIN):
        head = CompactHead.load(result.folder("head" if name == HEAD else "head-gain"))
        end_ids = ChatTokenizer(edited).end_ids
        return SteeredEngine(SteeredModel(load_model(edited), head, None, config, end_ids=end_ids))
    if name == TEACHER:
        return GuidedEngine.teacher(_reward(result, "reward"), config)
    slugs = [attribute.replace("_", "-") for attribute in recipe.attributes]
    rewards = [_reward(result, f"reward-{slug}") for slug in slugs]
    return GuidedEngine.separate(load_model(edited), rewards, config, log_ratio=name == SEPARATE)


def _reward(result: RunResult, stage: str) -> RewardModel:
    edited = result.folder("edit")
    return RewardModel.load(result.folder(stage), load_model(edited), checkpoint_fingerprint=fingerprint(edited))


def read_scores(path: Path) -> dict[int, dict[str, GridScores]]:
    """Return the measured scores, by seed and system."""
    found: dict[int, dict[str, GridScores]] = {}
    for row in read_jsonl(path) if path.is_file() else ():
        found.setdefault(row["seed"], {})[row["system"]] = GridScores.from_json(row, where=str(path))
    return found


def print_report(path: Path, *, draws: int) -> None:
    """Print the figures of heads and teacher, then with the separate models, over the complete seeds."""
    by_seed = [found for _, found in sorted(read_scores(path).items())]
    for systems in (SYSTEMS[:4], SYSTEMS[:5], SYSTEMS):
        complete = [found for found in by_seed if set(systems) <= set(found)]
        if complete:
            runs = {name: [found[name] for found in complete] for name in systems}
            if len(complete) > 1:
                print_by_seed(runs)
            if draws:
                print_figures(runs, draws=draws)


def print_by_seed(runs: Runs) -> None:
    """Print the head's difference from every other system: means over seeds with t-intervals."""
    seeds, grid = range(len(runs[HEAD])), PreferenceGrid(runs[HEAD][0].attributes, edge_levels=EDGE_LEVELS)
    measures: dict[str, Volume] = {
        "hypervolume": lambda points: hypervolume(points, np.zeros(points.shape[1])),
        "mean inner product": lambda points: mean_inner_product(grid.points, points),
    }
    print(f"\nby seed: {len(seeds)} seeds; mean over seeds, difference with a 95 % t-interval")
    for title, measure in measures.items():
        values = {name: [measure(run.means()) for run in found] for name, found in runs.items() if name != UNSTEERED}
        for name in values:
            found = clustered_difference(values[name], values[HEAD], seeds, bounds=(-np.inf, np.inf))
            limits = f"{found.estimate:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
            ahead = sum(ours > theirs for ours, theirs in zip(values[HEAD], values[name], strict=True))
            print(f"  {title}, {name:32} {np.mean(values[name]):.4f}  head less it {limits}, ahead on {ahead}")


def print_figures(runs: Runs, *, draws: int) -> None:
    """Print every figure with its interval, and every step of every weight."""
    grid = PreferenceGrid(runs[HEAD][0].attributes, edge_levels=EDGE_LEVELS)
    clusters = [run.clusters for run in runs[HEAD]]
    n_seeds, n_probes = len(clusters), len(clusters[0])
    print(
        f"\n{', '.join(runs)}\n{n_seeds} seeds, {len(grid.points)} preferences, {n_probes} probes each; 95 % intervals"
    )
    for name, interval in hierarchical_bootstrap(
        clusters, lambda draw: figures(runs, grid, draw), seed=0, draws=draws
    ).items():
        print(f"  {name:64} {interval.estimate:8.4f}  ({interval.low:.4f} to {interval.high:.4f})")
    for system in (HEAD, TEACHER):
        steps = monotone_steps(runs[system], grid, draws=draws)
        print(f"  {system}: {'every' if is_monotone(steps) else 'not every'} step raises its attribute in the mean")
        for step in steps:
            change = step.change
            limits = f"({change.low:+.4f} to {change.high:+.4f})"
            print(f"    {step.attribute:16} {step.before:.2f} to {step.after:.2f}  {change.estimate:+.4f}  {limits}")


def figures(runs: Runs, grid: PreferenceGrid, draw: Draw) -> dict[str, float]:
    """Return every figure of one bootstrap sample, as means over its runs."""
    steered = [name for name in runs if name != UNSTEERED]
    others = [name for name in steered if name != HEAD]
    means = {name: [found[run].means(weights) for run, weights in draw] for name, found in runs.items()}  # [points, k]
    found: dict[str, float] = {}
    for title, scale in (("", as_they_are), ("normalised ", normalised)):
        volumes = {
            name: float(
                np.mean([volume(points) for points, volume in zip(means[name], scale(runs, draw), strict=True)])
            )
            for name in steered
        }
        found |= {f"{title}hypervolume, {name}": volumes[name] for name in steered}
        found |= {f"{title}hypervolume, head by {name}": _ratio(volumes[HEAD], volumes[name]) for name in others}
    products = {
        name: float(np.mean([mean_inner_product(grid.points, points) for points in means[name]])) for name in steered
    }
    found |= {f"mean inner product, {name}": products[name] for name in steered}
    found |= {f"mean inner product, head less {name}": products[HEAD] - products[name] for name in others}
    for index, attribute in enumerate(grid.attributes):
        at = runs[HEAD][0].at(grid.corner(index))
        own = np.mean([points[0, index] for points in means[UNSTEERED]])
        gains = {name: float(np.mean([points[at, index] for points in means[name]]) - own) for name in steered}
        found |= {f"gain at the corner of {attribute}, {name}": gains[name] for name in steered}
        found |= {
            f"gain at the corner of {attribute}, head by {name}": _ratio(gains[HEAD], gains[name]) for name in others
        }
    return found


def _ratio(value: float, reference: float) -> float:
    """Return the ratio of a value to a reference; NaN if the reference is 0."""
    return value / reference if reference else float("nan")


def as_they_are(runs: Runs, draw: Draw) -> list[Volume]:
    """Return, for each run of a sample, the hypervolume of the scores with reference point 0."""
    return [lambda points: hypervolume(points, np.zeros(points.shape[1]))] * len(draw)


def normalised(runs: Runs, draw: Draw) -> list[Volume]:
    """Return, for each run, the hypervolume of scores normalised by the lowest and highest mean on each axis."""
    found: list[Volume] = []
    for run, _ in draw:
        every = np.vstack([scores[run].means() for scores in runs.values()])
        low, span = every.min(0), np.ptp(every, 0)
        span[span == 0] = 1.0  # an axis without variation
        found.append(lambda points, low=low, span=span: hypervolume((points - low) / span, np.full(len(low), -MARGIN)))
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for models and scores; results are reused")
    parser.add_argument("--seeds", default="0,1,2,3,4,5,6,7,8,9", help="separated by commas")
    parser.add_argument("--systems", default=";".join(SYSTEMS), help="separated by semicolons")
    parser.add_argument("--probes", type=int, default=120, help="held-out probes, over three kinds")
    parser.add_argument("--draws", type=int, default=400, help="bootstrap samples, minutes for ten seeds; 0: none")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of the recipe")
    parser.add_argument("--report", action="store_true", help="only print existing results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
