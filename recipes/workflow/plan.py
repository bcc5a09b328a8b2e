"""What a run will do: every stage in order, with the key that names its result (torch-free).

A result's key is the SHA-256 of the stage's name, parameters, seed, code version, and the keys or content digests of
its inputs, one of which may be a single file of another result. So a second run does only what has changed, and no
result is taken for one that was made in another way. Its code-free key leaves out the code versions, its own and those
of what it was made from: where it is the same, only code has changed, and whoever runs may accept that.
"""

import graphlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.files import canonical_json, sha256_file

from .code_version import code_versions
from .progress import print_plan
from .stage import Outside, Stage, Upstream
from .store import Store

State = Literal["reused", "kept", "to do", "cleaned"]


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its key.

    Attributes:
        key: of its result; that of an earlier one where its change of code was accepted.
        accepts: the key that the present code gives, where an earlier result stands for it.
        code: its code version now.
        inputs: for each input its path and its origin, the way the marker records it.
        state: reused (the result is there), kept (one of other code is there, and that was accepted), to do, or
            cleaned (dual-use, deleted, and nothing needs it).
    """

    stage: Stage
    key: str
    code_free_key: str
    accepts: str | None
    code: str
    inputs: Mapping[str, tuple[Path, Mapping[str, str]]]
    folder: Path
    state: State = "to do"

    def row(self) -> tuple[str, str, str, float | None, int | None]:
        """Return stage, title, state, estimated seconds, and bytes: those on disk, else an estimate."""
        stage, is_there = self.stage, self.state in ("reused", "kept")
        n_bytes = _size(self.folder) if is_there else stage.estimate_bytes
        return stage.name, stage.title, self.state, None if is_there else stage.estimate_seconds, n_bytes


@dataclass(frozen=True)
class Facts:
    """What keys are made from and stays the same while a run is at work.

    Attributes:
        stages: in the order in which they run.
        codes: code version of each stage, by name.
        digests: of the inputs from outside.
        accept_code_change: whether results are kept that only a change of code sets apart.
    """

    stages: tuple[Stage, ...]
    codes: Mapping[str, str]
    digests: Mapping[Outside, str]
    accept_code_change: bool


@dataclass(frozen=True)
class RunPlan:
    """What a run will do, in the order in which it will do it."""

    store: Store
    stages: tuple[PlannedStage, ...]
    facts: Facts

    def print(self, console: Console) -> None:
        """Print the plan as a table: stage, re-used or to do, time, and disk (that of a result which is there)."""
        print_plan(console, [planned.row() for planned in self.stages])

    def refreshed(self) -> "RunPlan":
        """Return the same plan after another look at which results are there."""
        return _plan(self.facts, self.store)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plan as JSON values, one object per stage."""
        return [
            {"stage": p.stage.name, "key": p.key, "state": p.state, "folder": str(p.folder), "bytes": p.row()[-1]}
            for p in self.stages
        ]


def plan_run(stages: Sequence[Stage], store: Path, *, accept_code_change: bool = False) -> RunPlan:
    """Put stages in order, name their results, and find out which are there already; nothing is written.

    Args:
        stages: of one recipe.
        store: folder of the results.
        accept_code_change: keep results that only a change of code sets apart from what would be made now.

    Raises:
        InputError: two stages share a name, an input names no stage, stages go in a circle, an outside input is
            missing, or parameters are not JSON values.
    """
    ordered = tuple(_ordered(stages))
    outside = {source for stage in ordered for source in stage.inputs.values() if isinstance(source, Outside)}
    facts = Facts(
        ordered,
        code_versions({stage.name: stage.run for stage in ordered}),
        {source: source.digest() for source in outside},
        accept_code_change,
    )
    return _plan(facts, Store(store))


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


def _plan(facts: Facts, store: Store) -> RunPlan:
    planned: dict[str, PlannedStage] = {}
    for stage in facts.stages:
        planned[stage.name] = _planned(stage, planned, facts=facts, store=store)
    return RunPlan(store, _with_states(tuple(planned.values()), store), facts)


def _planned(stage: Stage, earlier: Mapping[str, PlannedStage], *, facts: Facts, store: Store) -> PlannedStage:
    """Name a stage's result, or an earlier one that stands for it."""
    inputs: dict[str, tuple[Path, Mapping[str, str]]] = {}
    keys: dict[str, str] = {}
    code_free: dict[str, str] = {}
    for name, source in stage.inputs.items():
        match source:
            case Upstream(upstream, None):
                made = earlier[upstream]
                inputs[name] = made.folder, {"stage": upstream, "key": made.key}
                keys[name], code_free[name] = made.key, made.code_free_key
            case Upstream(upstream, str(file)):
                keys[name] = code_free[name] = _file_digest(earlier[upstream], file, facts=facts, store=store)
                inputs[name] = earlier[upstream].folder / file, {"stage": upstream, "file": file, "sha256": keys[name]}
            case Outside(path):
                keys[name] = code_free[name] = facts.digests[source]
                inputs[name] = path.resolve(), {"path": str(path), "sha256": keys[name]}
    code = facts.codes[stage.name]
    key, code_free_key = _key(stage, keys, code), _key(stage, code_free, None)
    kept = store.accepted(stage.name, key, code_free_key=code_free_key if facts.accept_code_change else None)
    accepts, key = (key, kept["key"]) if kept else (None, key)
    return PlannedStage(stage, key, code_free_key, accepts, code, inputs, store.result(stage.name, key))


def _file_digest(planned: PlannedStage, file: str, *, facts: Facts, store: Store) -> str:
    """Return the SHA-256 of a file of a stage's result; before that is there, of what the stage will copy.

    Where neither is known it stands for a file that nothing was made from yet: `refreshed` looks again.
    """
    stage = planned.stage
    if store.marker(stage.name, planned.key):
        return sha256_file(planned.folder / file)
    source = stage.inputs.get(stage.copies.get(file, ""))
    return facts.digests[source] if isinstance(source, Outside) else f"{planned.key}/{file}"


def _key(stage: Stage, inputs: Mapping[str, str], code: str | None) -> str:
    made_from = {"name": stage.name, "parameters": stage.parameters, "seed": stage.seed, "inputs": inputs}
    try:
        return hashlib.sha256(canonical_json(made_from | {"code_version": code}).encode()).hexdigest()
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
            states[name] = "kept" if planned.accepts else "reused"
        else:
            states[name] = "cleaned" if unneeded else "to do"
    return tuple(replace(planned, state=states[planned.stage.name]) for planned in stages)
