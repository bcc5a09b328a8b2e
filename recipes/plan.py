"""What a run will do: every stage in order, with the key that names its result (torch-free).

A result's key is the SHA-256 of the stage's name, parameters, seed, code version, and the keys or content digests of
its inputs. So a second run does only what has changed, and no result is taken for one that was made in another way.
"""

import graphlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from prosocial.editing.errors import InputError, UnknownNameError
from prosocial.editing.files import canonical_json

from .code_version import code_version
from .progress import print_plan
from .stage import Outside, Stage, Upstream
from .store import Store

# What the functions of many stages rest on, beside the modules that each stage names.
SHARED_CODE = ("prosocial.recipes.stages.models", "prosocial.editing.noise", "prosocial.editing.files")

State = Literal["reused", "to do", "cleaned"]


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its key.

    Attributes:
        inputs: for each input its path and its origin, the way the marker records it.
        state: reused (the result is there), to do, or cleaned (dual-use, deleted, and nothing needs it).
    """

    stage: Stage
    key: str
    code: str
    inputs: Mapping[str, tuple[Path, Mapping[str, str]]]
    folder: Path
    state: State = "to do"

    def row(self) -> tuple[str, str, str, float | None, int | None]:
        """Return stage, title, state, estimated seconds, and bytes: those on disk, else an estimate."""
        stage, is_there = self.stage, self.state == "reused"
        n_bytes = _size(self.folder) if is_there else stage.estimate_bytes
        return stage.name, stage.title, self.state, None if is_there else stage.estimate_seconds, n_bytes


@dataclass(frozen=True)
class RunPlan:
    """What a run will do, in the order in which it will do it."""

    store: Store
    stages: tuple[PlannedStage, ...]

    def print(self, console: Console) -> None:
        """Print the plan as a table: stage, re-used or to do, time, and disk (that of a result which is there)."""
        print_plan(console, [planned.row() for planned in self.stages])

    def refreshed(self) -> "RunPlan":
        """Return the same plan with every state looked up again."""
        return RunPlan(self.store, _with_states(self.stages, self.store))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plan as JSON values, one object per stage."""
        return [
            {"stage": p.stage.name, "key": p.key, "state": p.state, "folder": str(p.folder), "bytes": p.row()[-1]}
            for p in self.stages
        ]


def plan_run(stages: Sequence[Stage], store: Path) -> RunPlan:
    """Put stages in order, name their results, and find out which are there already; nothing is written.

    Raises:
        InputError: two stages share a name, an input names no stage, stages go in a circle, an outside input is
            missing, or parameters are not JSON values.
    """
    place = Store(store)
    planned: dict[str, PlannedStage] = {}
    for stage in _ordered(stages):
        planned[stage.name] = _planned(stage, planned, place)
    return RunPlan(place, tuple(planned.values())).refreshed()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _ordered(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Yield every stage after those it reads from, otherwise in the order given."""
    by_name = {stage.name: stage for stage in stages}
    if len(by_name) < len(stages):
        raise InputError(f"stage names should differ, found {', '.join(sorted(stage.name for stage in stages))}")
    for stage in stages:
        for name in stage.upstream:
            if name not in by_name:
                raise UnknownNameError(f"stage (an input of {stage.name})", name, by_name)
    sorter = graphlib.TopologicalSorter({stage.name: stage.upstream for stage in stages})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise InputError(f"stages should not go in a circle, found {' <- '.join(error.args[1])}") from None
    given = list(by_name)
    while sorter.is_active():
        for name in sorted(sorter.get_ready(), key=given.index):
            yield by_name[name]
            sorter.done(name)


def _planned(stage: Stage, earlier: Mapping[str, PlannedStage], store: Store) -> PlannedStage:
    inputs: dict[str, tuple[Path, Mapping[str, str]]] = {}
    for name, source in stage.inputs.items():
        match source:
            case Upstream(upstream):
                inputs[name] = earlier[upstream].folder, {"stage": upstream, "key": earlier[upstream].key}
            case Outside(path):
                inputs[name] = path.resolve(), {"path": str(path), "sha256": source.digest()}
    code = code_version({*stage.modules, *SHARED_CODE, *_own_module(stage)})
    key = _key(stage, code, {name: origin.get("key") or origin["sha256"] for name, (_, origin) in inputs.items()})
    return PlannedStage(stage, key, code, inputs, store.result(stage.name, key))


def _own_module(stage: Stage) -> set[str]:
    """Return the module of the stage's function; one from outside the package has none that could be found again."""
    module = stage.run.__module__
    return {module} if module.startswith("prosocial.") else set()


def _key(stage: Stage, code: str, inputs: Mapping[str, str]) -> str:
    made_from = {
        "name": stage.name,
        "parameters": stage.parameters,
        "seed": stage.seed,
        "inputs": inputs,
        "code_version": code,
    }
    try:
        return hashlib.sha256(canonical_json(made_from).encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise InputError(f"the parameters of stage {stage.name} should be finite JSON values: {error}") from None


def _with_states(stages: tuple[PlannedStage, ...], store: Store) -> tuple[PlannedStage, ...]:
    """Look up which results are there; from the last stage to the first, since the last ones say what is needed."""
    states: dict[str, State] = {}
    for planned in reversed(stages):
        name = planned.stage.name
        consumers = [other.stage.name for other in stages if name in other.stage.upstream]
        unneeded = planned.stage.dual_use and consumers and all(states[other] != "to do" for other in consumers)
        if store.marker(name, planned.key):
            states[name] = "reused"
        else:
            states[name] = "cleaned" if unneeded else "to do"
    return tuple(replace(planned, state=states[planned.stage.name]) for planned in stages)
