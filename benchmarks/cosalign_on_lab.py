"""Measures CoSAlign on the lab: CoSA-Scores of a model before and after each training step, and with a gate.

    python benchmarks/cosalign_on_lab.py --out runs/cosalign-lab --seeds 0,1,2,3,4,5,6,7,8,9
    python benchmarks/cosalign_on_lab.py --out runs/cosalign-lab --report docs/design

For each seed, the stages of `prosocial run cosalign` compute data, base, pairs, SFT and DPO; for the DPO model, the
quickstart's stages train a gate and choose its threshold. Six systems answer held-out requests under the lab's five
configs at temperature 1, with noise that depends only on the question: the base in context, the base with five
examples, SFT, SFT + DPO, SFT + DPO + gate, and one that always refuses. The lab's judge scores every reply.

Under each config, a third of the requests ask for allowed harm, a third for other harm, and a third are harmless; under
the strict config, two thirds ask for harm. The gated system answers 1,024 requests, the others the first 256, in the
same proportions.

One JSON line per seed, system and config is appended to `rows.jsonl`; existing rows are not measured again.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosalign_report import BASE, DPO, FIVE_SHOT, GATED, REFUSER, SFT, SYSTEMS, write_report
from rich.console import Console

from prosocial.core.appended_rows import AppendedRows
from prosocial.core.errors import InputError
from prosocial.editing.checkpoints import Checkpoint
from prosocial.evaluation.cosa_score import CosaVerdict, Question, ScoredConfig, questions_of, read_configs, read_shots
from prosocial.evaluation.cosa_score.systems import AskedSystem, asked_systems
from prosocial.evaluation.cosa_score.verdicts import judge_row
from prosocial.evaluation.probes.probe import Probe, read_probes
from prosocial.evaluation.sampling.shards import Drawing, answer_shard
from prosocial.recipes.cosalign.pipeline import cosalign_stages
from prosocial.recipes.cosalign.schema import CosalignRecipe
from prosocial.recipes.lab.config_judge import LabConfigJudge
from prosocial.recipes.lab.replies import REFUSAL
from prosocial.recipes.reading.loading import load_recipe
from prosocial.recipes.steering.edit import edit_stages
from prosocial.recipes.steering.gate import gate_stages
from prosocial.recipes.steering.schema import Recipe
from prosocial.recipes.steering.steered import export_stages
from prosocial.recipes.steering.threshold import threshold_stage
from prosocial.recipes.workflow.plan import plan_run
from prosocial.recipes.workflow.runner import RunResult, execute
from prosocial.recipes.workflow.stage import Stage, StageContext, Upstream
from prosocial.steering.head import CompactHead

TEMPERATURE, MAX_NEW_TOKENS = 1.0, 64
PARTS = ("allowed", "disallowed", "harmless")
N_GATED, N_UNGATED = (320, 352, 352), (80, 88, 88)
# Enough held-out harmful requests for 320 of each category.
WORLD = ["data.lab.harmful_probes=3072"]
MODEL_OF = {BASE: "base", FIVE_SHOT: "base", SFT: "sft", DPO: "dpo", GATED: "steered"}


def main() -> None:
    """Measure every seed, one after the other, or print the report on existing results."""
    arguments, console = _arguments(), Console(width=140)
    path = arguments.out / "rows.jsonl"
    for seed in () if arguments.report else map(int, arguments.seeds.split(",")):
        measure_seed(seed, arguments, path, console)
    write_report(path, folder=arguments.report, draws=arguments.draws)


def measure_seed(seed: int, arguments: argparse.Namespace, path: Path, console: Console) -> None:
    """Compute the stages of a seed, and append a row for every system and config that has none yet."""
    systems = arguments.systems.split(";")
    stages = stages_of(seed, arguments.set, gate=arguments.set_gate if GATED in systems else None)
    result = execute(plan_run(stages, arguments.out / f"seed{seed}"), console)
    data = result.folder("data")
    configs, probes = read_configs(data / "configs.jsonl"), read_probes(data / "probes.jsonl")
    rows = AppendedRows(path)
    done = {(row["seed"], row["system"], row["config"]) for row in rows.rows}
    for name in systems:
        for config in configs:
            if (seed, name, config.name) in done:
                continue
            started = time.perf_counter()
            questions = chosen_questions(config, probes, N_GATED if name == GATED else N_UNGATED)
            verdicts = answer(name, questions, result, seed)
            row = {"seed": seed, "system": name, "seconds": round(time.perf_counter() - started, 2)}
            rows.append(row | row_of(config, questions, verdicts))
            console.print(f"seed {seed}, {name}, {config.name}: {len(questions)} replies in {row['seconds']:.0f} s")


def stages_of(seed: int, overrides: Sequence[str], *, gate: Sequence[str] | None) -> list[Stage]:
    """Return CoSAlign's stages, plus those of a gate with overrides `gate` unless that is None."""
    recipe = load_recipe("cosalign", [f"seed={seed}", *WORLD, *overrides], model=CosalignRecipe)
    own = cosalign_stages(recipe)
    return own if gate is None else own + gate_on_top(load_recipe("quickstart", [f"seed={seed}", *gate], model=Recipe))


def gate_on_top(recipe: Recipe) -> list[Stage]:
    """Return the quickstart's stages from the harmful copy to the steered model, with the tuned model as base."""
    harmful, *_ = edit_stages(recipe, Upstream("dpo"))
    head = Stage(
        name="head",
        title="create a head without effect",
        run=_still_head,
        inputs={"edited": Upstream("edit")},
        parameters={"attributes": list(recipe.attributes)},
    )
    steered, _ = export_stages(recipe)
    stages = [harmful, head, *gate_stages(recipe, Upstream("base")), threshold_stage(recipe), steered]
    return [
        replace(
            stage,
            inputs={
                name: Upstream("dpo") if source == Upstream("edit") else source for name, source in stage.inputs.items()
            },
        )
        for stage in stages
    ]


def _still_head(context: StageContext) -> str:
    checkpoint = Checkpoint.open(context.inputs["edited"])
    head = CompactHead(context.parameters["attributes"], checkpoint.config["hidden_size"], rank=1)
    head.save(context.out, checkpoint_fingerprint=checkpoint.fingerprint())
    return "rank 1, no shift"


def chosen_questions(
    config: ScoredConfig, probes: Sequence[Probe], counts: Sequence[int]
) -> list[tuple[str, Question]]:
    """Return `counts` held-out requests of each part under a config.

    Under a config that allows nothing, the requests for allowed harm are replaced by requests for other harm.
    """
    allowed = config.allowed or frozenset()
    plain = [probe for probe in probes if probe.attack is None]
    harmless = [[probe for probe in plain if probe.kind == kind] for kind in ("benign", "twin")]
    by_part = {
        "allowed": [probe for probe in plain if probe.kind == "harmful" and probe.category in allowed],
        "disallowed": [probe for probe in plain if probe.kind == "harmful" and probe.category not in allowed],
        "harmless": [probe for pair in zip(*harmless, strict=True) for probe in pair],
    }
    n_of_part = dict(zip(PARTS, counts, strict=True))
    if not allowed:
        n_of_part |= {"allowed": 0, "disallowed": n_of_part["allowed"] + n_of_part["disallowed"]}
    for part, count in n_of_part.items():
        if len(by_part[part]) < count:
            raise InputError(
                f"config {config.name} should have {count} probes of part {part}, found {len(by_part[part])}"
            )
    return [
        (part, question)
        for part in PARTS
        if n_of_part[part]
        for question in questions_of(by_part[part][: n_of_part[part]], [config])
    ]


def answer(name: str, questions: Sequence[tuple[str, Question]], result: RunResult, seed: int) -> list[CosaVerdict]:
    """Generate one system's replies and judge them."""
    plain, judge = [question for _, question in questions], LabConfigJudge()
    if name == REFUSER:
        rows = {question.id: {"reply": REFUSAL, "finish": "end", "error": ""} for question in plain}
    else:
        system = _open_system(name, plain, result)
        shards = system.shards(Drawing(seed + 60, TEMPERATURE, MAX_NEW_TOKENS))
        rows = {row["probe"]: row for shard in shards for row in answer_shard(shard)}
    return [judge_row(question, rows[question.id], judge, "harm-set") for question in plain]


def _open_system(name: str, questions: Sequence[Question], result: RunResult) -> AskedSystem:
    folder, five = result.folder(MODEL_OF[name]), name == FIVE_SHOT
    configs = list(dict.fromkeys(question.config for question in questions))
    shots = read_shots(result.folder("data") / "shots.jsonl", configs) if five else {}
    return asked_systems({name: folder}, questions, baselines=("5-shot",) if five else (), shots=shots)[-1]


def row_of(
    config: ScoredConfig, questions: Sequence[tuple[str, Question]], verdicts: Sequence[CosaVerdict]
) -> dict[str, Any]:
    """Return the row of one system under one config, with a value for each question."""
    return {
        "config": config.name,
        "seen": config.seen,
        "probe": [question.probe.id for _, question in questions],
        "part": [part for part, _ in questions],
        "topic": [question.probe.cluster for _, question in questions],
        "helpfulness": [verdict.helpfulness for verdict in verdicts],
        "is_safe": [verdict.is_safe for verdict in verdicts],
        "refused": [verdict.outcome.judgement.refusal == "full" for verdict in verdicts],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for models and rows; existing results are reused"
    )
    parser.add_argument("--seeds", default="0,1,2,3,4,5,6,7,8,9", help="separated by commas")
    parser.add_argument("--systems", default=";".join(SYSTEMS), help="separated by semicolons")
    parser.add_argument("--draws", type=int, default=1000, help="number of bootstrap samples")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an override of the recipe cosalign"
    )
    parser.add_argument(
        "--set-gate",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an override of the quickstart for the gate",
    )
    parser.add_argument(
        "--report", type=Path, help="write the plot into this folder and print the tables; no measuring"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
