"""Runs the stages of a recipe; existing results are reused, and a killed run resumes (torch-free)."""

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from prosocial.core.errors import UnknownNameError

from .plan import PlannedStage, RunPlan, plan_run
from .progress import print_line, print_stage, stage_progress
from .resources import peak_memory_bytes, say_bytes, say_seconds
from .stage import StageContext
from .store import Store, link_result, require_link_or_nothing

__all__ = ["RunPlan", "RunResult", "StageResult", "delete_dual_use", "execute", "plan_run"]


@dataclass(frozen=True)
class StageResult:
    """The result of one stage; `seconds` is the time of the run that computed it, which may be an earlier one."""

    name: str
    folder: Path
    state: Literal["done", "reused", "kept", "cleaned"]
    summary: str
    seconds: float


@dataclass(frozen=True)
class RunResult:
    """The results of a run, its wall time in seconds, and the peak memory of the process and its largest child."""

    stages: tuple[StageResult, ...]
    seconds: float
    peak_memory_bytes: int

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage's artefact.

        Raises:
            UnknownNameError: no stage has this name.
        """
        folders = {result.name: result.folder for result in self.stages}
        if stage not in folders:
            raise UnknownNameError("stage", stage, folders)
        return folders[stage]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        stages = [{**vars(result), "folder": str(result.folder)} for result in self.stages]
        return {"seconds": self.seconds, "peak_memory_bytes": self.peak_memory_bytes, "stages": stages}


def execute(plan: RunPlan, console: Console, *, out: Path | None = None, device: str = "cpu") -> RunResult:
    """Run the stages without a result, print their progress, and link every result as `out/<stage>`.

    Args:
        plan: plan from `plan_run`; it is updated once the store is locked.
        console: console for progress; a bar on a terminal, plain lines elsewhere.
        out: folder for relative links to the results; None for no links.
        device: device of the stages' models.

    Raises:
        InputError: another run uses the store, or a file or folder is in the place of a link.
        ModuleNotFoundError: a stage that will run needs a package that is not installed; nothing has run.
        StorageError: the disk has less free space than a stage is estimated to need.
        Exception: whatever a stage raises; finished results and the stage's scratch folder are kept.
    """
    started = time.monotonic()
    with plan.store.locked():
        plan.store.delete_leftovers()
        plan = plan.refreshed()
        _require_packages(plan)
        _say_left_over(plan, console)
        _remove_links(plan, out)
        results: list[StageResult] = []
        while len(results) < len(plan.stages):
            results.append(_settle(plan.stages[len(results)], plan.store, console=console, out=out, device=device))
            if results[-1].state == "done":
                plan = plan.refreshed()  # the digests of this result's files are known now
    result = RunResult(tuple(results), time.monotonic() - started, peak_memory_bytes())
    memory = say_bytes(result.peak_memory_bytes)
    print_line(console, f"{len(results)} stages in {say_seconds(result.seconds)}, peak memory {memory}", style="bold")
    return result


def delete_dual_use(plan: RunPlan, *, out: Path | None = None) -> list[str]:
    """Delete every dual-use result in the store, including those of earlier runs, its link, and all scratch folders.

    Returns:
        The names of the deleted folders.

    Raises:
        InputError: another run uses the store.
    """
    with plan.store.locked():
        plan.store.delete_leftovers()
        plan.store.delete_scratch()
        deleted = plan.store.dual_use_results()
        for folder in deleted:
            plan.store.delete(folder)
        _remove_links(plan, out, dangling_only=True)
    return [folder.name for folder in deleted]


def _settle(planned: PlannedStage, store: Store, *, console: Console, out: Path | None, device: str) -> StageResult:
    """Reuse the result of one stage or run it, print its line and link its result."""
    name = planned.stage.name
    if planned.state == "cleaned":
        print_stage(console, name=name, state="cleaned", seconds=None, summary="deleted, not needed")
        return StageResult(name, planned.folder, "cleaned", "", 0.0)
    marker = store.marker(name, planned.key)
    state: Literal["done", "reused", "kept"] = "done" if marker is None else "kept" if planned.accepts else "reused"
    if marker is None:
        changed = store.changed_files(name, planned.key)
        if changed:
            files = ", ".join(map(repr, changed[:3])) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            print_line(console, f"{name}: {files} changed after the stage wrote them, so it runs again", style="yellow")
        with _reported(name, console):
            marker = _make(planned, store, console, device)
    if planned.accepts:
        store.accept(marker, key=planned.accepts, code=planned.code)
    seconds = marker["seconds"] if state == "done" else None
    print_stage(console, name=name, state=state, seconds=seconds, summary=marker["summary"])
    if out is not None:
        link_result(out / name, planned.folder)
    return StageResult(name, planned.folder, state, marker["summary"], marker["seconds"])


def _make(planned: PlannedStage, store: Store, console: Console, device: str) -> dict[str, Any]:
    """Run one stage into a partial folder, commit it, and return its marker."""
    stage = planned.stage
    store.require_free(stage.estimate_bytes, stage=stage.name)
    started = time.monotonic()
    paths = {name: path for name, (path, _) in planned.inputs.items()}
    with store.partial(stage.name, planned.key) as partial:
        with stage_progress(console, name=stage.name, title=stage.title, at_once=True) as progress:
            scratch = store.scratch(stage.name, planned.key)
            summary = stage.run(StageContext(partial, paths, stage.parameters, scratch, progress, stage.seed, device))
        marker = {
            "stage": stage.name,
            "key": planned.key,
            "inputs": {name: dict(origin) for name, (_, origin) in planned.inputs.items()},
            "parameters": dict(stage.parameters),
            "seed": stage.seed,
            **({"device": device} if "dtype" in stage.parameters else {}),
            "code_version": planned.code,
            "code_free_key": planned.code_free_key,
            "dual_use": stage.dual_use,
            "summary": " ".join(summary.split()),
            "seconds": round(time.monotonic() - started, 3),
            "peak_memory_bytes": peak_memory_bytes(),
        }
        store.commit(partial, marker)
    return marker


@contextmanager
def _reported(name: str, console: Console) -> Iterator[None]:
    """Print the line of a stage that ends with an exception or Ctrl-C, and re-raise."""
    started = time.monotonic()
    try:
        yield
    except BaseException as error:
        how = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        summary = f"{how}; finished results are kept, run the same command again to resume"
        print_stage(console, name=name, state="failed", seconds=time.monotonic() - started, summary=summary)
        raise


def _require_packages(plan: RunPlan) -> None:
    for planned in plan.stages:
        for package in planned.stage.needs if planned.state == "to do" else ():
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(f"stage {planned.stage.name} needs {package}", name=package)


def _say_left_over(plan: RunPlan, console: Console) -> None:
    """Say in one line what unfinished stages left under other settings: it is neither used nor in the way."""
    current = {planned.stage.name: planned.key for planned in plan.stages}
    n_folders, n_bytes = plan.store.set_aside(current)
    if n_folders:
        text = f"set aside: {n_folders} unfinished under other settings, {say_bytes(n_bytes)} in {plan.store.folder}"
        print_line(console, f"{text} (run --clean deletes them)", style="dim")


def _remove_links(plan: RunPlan, out: Path | None, *, dangling_only: bool = False) -> None:
    """Remove links to results, so that `out` never has a mixture of two runs."""
    if out is None:
        return
    for planned in plan.stages:
        require_link_or_nothing(out / planned.stage.name)
    inside = plan.store.folder.resolve()
    for link in out.iterdir() if out.is_dir() else ():
        ours = link.is_symlink() and link.resolve().parent == inside
        if ours and not (dangling_only and link.exists()):
            link.unlink()
