"""Turns a recipe into stages and runs them: what `prosocial run` calls."""

import importlib.util
import json as json_module
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prosocial.core.errors import UnknownNameError
from prosocial.core.files import read_json
from prosocial.core.placement import AUTO, Placement

from .reading.loading import load_recipe, recipe_pipeline
from .workflow.plan import RunPlan, plan_run
from .workflow.progress import print_line
from .workflow.resources import say_threads
from .workflow.runner import RunResult, delete_dual_use, execute
from .workflow.stage import Stage

if TYPE_CHECKING:
    from .steering.schema import Recipe


@dataclass(frozen=True)
class Pipeline:
    """A kind of recipe.

    Attributes:
        model: pydantic model that the YAML is validated against.
        stages: function that returns the stages of a recipe.
        show: function that prints the result of a run and returns the exit code.
        measure: function that measures the model of a recipe here and returns the stages with better estimates of time
            and memory, and a line on what was measured; None for a recipe whose model needs no measuring.
    """

    model: Any
    stages: Callable[[Any], list[Stage]]
    show: Callable[[RunResult, bool, Console], int]
    measure: Callable[[Any, list[Stage]], tuple[list[Stage], str] | None] = lambda recipe, stages: None


def _steering() -> Pipeline:
    from .steering.schema import Recipe

    return Pipeline(Recipe, recipe_stages, _show_report, measured_stages)


def _cosalign() -> Pipeline:
    from .cosalign.pipeline import cosalign_stages, show_counts
    from .cosalign.schema import CosalignRecipe

    return Pipeline(CosalignRecipe, cosalign_stages, show_counts)


# The kinds of recipes, by the value of a recipe's `pipeline` field; what one needs is imported when it is used.
PIPELINES: dict[str, Callable[[], Pipeline]] = {"steering": _steering, "cosalign": _cosalign}


def open_recipe(source: str, overrides: Sequence[str] = ()) -> tuple[Any, Pipeline]:
    """Read a recipe and return it with its kind.

    Raises:
        InputError: the recipe is invalid.
        UnknownNameError: no pipeline has the name that the recipe gives.
    """
    name = recipe_pipeline(source, default="steering")
    if name not in PIPELINES:
        raise UnknownNameError(f"pipeline of recipe {source}", name, PIPELINES)
    pipeline = PIPELINES[name]()
    return load_recipe(source, overrides, model=pipeline.model), pipeline


def recipe_stages(recipe: "Recipe") -> list[Stage]:
    """Return every stage of a recipe, in the order in which they are reported."""
    from .steering.edit import edit_stages
    from .steering.estimates import with_estimates
    from .steering.gate import gate_stages
    from .steering.head import head_stage
    from .steering.report import report_stages
    from .steering.reward import reward_stages
    from .steering.sources import base_source, data_stage
    from .steering.steered import export_stages
    from .steering.threshold import threshold_stage

    base, base_stages = base_source(recipe)
    stages = [
        data_stage(recipe),
        *base_stages,
        *edit_stages(recipe, base),
        *reward_stages(recipe),
        head_stage(recipe),
        *gate_stages(recipe, base),
        threshold_stage(recipe),
        *export_stages(recipe),
        *report_stages(recipe, base),
    ]
    return with_estimates(stages, base)


def measured_stages(recipe: "Recipe", stages: list[Stage]) -> tuple[list[Stage], str] | None:
    """Return a recipe's stages with estimates from a measured batch of each kind; None for the lab or without torch."""
    from .steering.schema import LabModel

    if isinstance(recipe.model, LabModel) or importlib.util.find_spec("torch") is None:
        return None
    from .steering.measuring import measure

    return measure(recipe, stages)


def run_recipe(
    source: str,
    *,
    out: Path,
    overrides: list[str],
    dry_run: bool,
    clean: bool,
    json: bool,
    console: Console,
    progress: Console | None = None,
    accept_code_change: bool = False,
    measure: bool = True,
) -> int:
    """Run a recipe into `out` and return the exit code.

    Args:
        source: name of a built-in recipe, or path of a YAML file.
        out: folder for the results; `out/store` keeps every artefact, `out/STAGE` links to the newest.
        overrides: changes to the recipe, such as `gate.rank=8`.
        dry_run: print the plan and stop.
        measure: for a plan, measure how fast a model that is not the lab's computes here.
        clean: delete harm vectors and harmful checkpoints at the end.
        json: print the report as JSON on standard output.
        console: console for the plan and the report.
        progress: console for progress and warnings; None takes `console`.
        accept_code_change: reuse earlier results whose only difference from a fresh run is the version of the code.

    Raises:
        InputError: the recipe is invalid; nothing is written.
    """
    with warnings.catch_warnings(record=True) as deprecations:
        warnings.filterwarnings("always", category=DeprecationWarning, module=r"prosocial\.")
        recipe, pipeline = open_recipe(source, overrides)
        recipe = _placed(recipe, dry_run=dry_run)
    for warning in deprecations:
        print_line(progress or console, f"warning: {warning.message}")
    store, stages = out / "store", pipeline.stages(recipe)
    measured = pipeline.measure(recipe, stages) if dry_run and measure else None
    stages, speed = (stages, "") if measured is None else measured
    is_table = dry_run and not json  # it shows no keys, so that without earlier results nothing depends on the code
    codes = dict.fromkeys((stage.name for stage in stages), "") if is_table and not store.exists() else None
    plan = plan_run(stages, store, accept_code_change=accept_code_change, codes=codes)
    if dry_run:
        _show_plan(plan, speed, json, console)
        return 0
    result = execute(plan, progress or console, out=out, device=recipe.device)
    if clean:
        delete_dual_use(plan, out=out)
    return pipeline.show(result, json, console)


def _placed(recipe: Any, *, dry_run: bool) -> Any:
    """Return a recipe with its device and dtype resolved; a plan needs no device, and torch only for an `auto` dtype.

    Raises:
        InputError: this machine lacks the device, or the device the dtype.
    """
    if dry_run and recipe.device == AUTO != recipe.dtype:
        return recipe
    return recipe.model_copy(update=vars(Placement.choose(recipe.device, recipe.dtype)))


def _show_plan(plan: RunPlan, speed: str, json: bool, console: Console) -> None:
    if json:
        print(json_module.dumps(plan.to_json()))
    else:
        plan.print(console)
        if speed:
            print_line(console, speed)
        print_line(console, f"{say_threads()}; other numbers of threads round differently and give other figures")


def _show_report(result: RunResult, json: bool, console: Console) -> int:
    """Print the report and return the exit code of its parity verdict: 0 pass, 1 fail, 3 ambiguous."""
    from prosocial.evaluation.report import print_report

    folder = result.folder("report")
    document = read_json(folder / "report.json", schema="prosocial.report/1")
    if json:
        print(json_module.dumps({"run": result.to_json(), "report": document}))
    else:
        print_report(document, console)
        console.print(f"report: {folder / 'report.html'}")
    return {"PASS": 0, "FAIL": 1}.get(str(document["parity"]["verdict"]).upper(), 3)
