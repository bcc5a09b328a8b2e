"""Turns a CoSAlign recipe into stages and prints the result of its run."""

import json as json_module

from rich.console import Console

from prosocial.core.files import read_json

from ..workflow.runner import RunResult
from ..workflow.stage import Stage
from .rows import COUNTS_FILE, SCHEMA, count_summary
from .schema import CosalignRecipe


def cosalign_stages(recipe: CosalignRecipe) -> list[Stage]:
    """Return every stage of a recipe, in the order in which they are reported."""
    from ..steering.schema import LabData
    from ..steering.sources import base_source, lab_data_stage
    from .stages import data_stages, prompts_stage
    from .tuning_stage import tuning_stages

    base, base_stages = base_source(recipe)
    lab = [lab_data_stage(recipe.data.lab, seed=recipe.seed)] if isinstance(recipe.data, LabData) else []
    return [
        *lab,
        *base_stages,
        prompts_stage(recipe),
        *data_stages(recipe, base),
        *tuning_stages(recipe, base),
    ]


def show_counts(result: RunResult, json: bool, console: Console) -> int:
    """Print the counts of each stage and the path of the tuned model; return exit code 0."""
    counts = {
        stage.name: read_json(stage.folder / COUNTS_FILE, schema=SCHEMA)
        for stage in result.stages
        if (stage.folder / COUNTS_FILE).is_file()
    }
    if json:
        print(json_module.dumps({"run": result.to_json(), "counts": counts, "model": str(result.folder("dpo"))}))
        return 0
    for name, stage_counts in counts.items():
        console.print(f"{name}: {count_summary(stage_counts)}")
    console.print(f"model: {result.folder('dpo')}")
    return 0
