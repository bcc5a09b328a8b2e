"""The plan of a run: every stage in order, with the key that identifies its result (torch-free).

A result's key is the SHA-256 of the stage's name, parameters, seed, code version, and the keys or content digests of
its inputs; an input may be a single file of another result. So a second run repeats only the stages whose key has
changed. The code-free key excludes the code versions of the stage and of its inputs: if it is the same, only code has
changed, and the user may accept the earlier result.
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
from .progress import PlanRow, print_plan
from .stage import Outside, Stage, Upstream
from .store import Store

State = Literal["reused", "kept", "to do", "cleaned"]


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan, with its key.

    Attributes:
        stage: the stage.
        key: key of its result, or of the earlier result that is accepted instead.
        code_free_key: key without code versions.
        accepts: the key under the current code, if an earlier result is accepted instead; otherwise None.
        code: current code version of the stage.
        inputs: path and origin of each input; the marker records the origin.
        folder: folder of its result.
        state: reused (the result exists), kept (an accepted result of other code exists), to do, or cleaned (dual-use,
            deleted, and no remaining stage needs it).
    """

    stage: Stage
    key: str
    code_free_key: str
    accepts: str | None
    code: str
    inputs: Mapping[str, tuple[Path, Mapping[str, str]]]
    folder: Path
    state: State = "to do"

    def row(self) -> PlanRow:
        """Return the line of the plan; disk space is measured if the result exists."""
        stage, exists = self.stage, self.state in ("reused", "kept")
        n_bytes = _size(self.folder) if exists else stage.estimate_bytes
        seconds, memory = (None, None) if exists else (stage.estimate_seconds, stage.estimate_memory_bytes)
        return PlanRow(stage.name, stage.title, self.state, seconds, n_bytes, memory)


@dataclass(frozen=True)
class Facts:
    """The inputs of the keys that do not change during a run.

    Attributes:
        stages: stages in the order in which they run.
        codes: code version of each stage, by name.
        digests: content digests of the inputs from outside the run.
        accept_code_change: whether to reuse results whose only difference is the code version.
    """

    stages: tuple[Stage, ...]
    codes: Mapping[str, str]
    digests: Mapping[Outside, str]
    accept_code_change: bool


@dataclass(frozen=True)
class RunPlan:
    """The stages of a run in the order in which they run, and the store of their results."""

    store: Store
    stages: tuple[PlannedStage, ...]
    facts: Facts

    def print(self, console: Console) -> None:
        """Print the plan as a table: stage, state, estimated time, memory and disk space (of results, measured)."""
        print_plan(console, [planned.row() for planned in self.stages])

    def refreshed(self) -> "RunPlan":
        """Return the plan with the states of the results updated from the store."""
        return _plan(self.facts, self.store)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the plan as JSON values, one object per stage."""
        return [
            {"stage": p.stage.name, "key": p.key, "state": p.state, "folder": str(p.folder), "bytes": row.n_bytes}
            | {"seconds": row.seconds, "memory_bytes": row.memory_bytes}
            for p, row in ((planned, planned.row()) for planned in self.stages)
        ]


def plan_run(
    stages: Sequence[Stage],
    store: Path,
    *,
    accept_code_change: bool = False,
    codes: Mapping[str, str] | None = None,
) -> RunPlan:
    """Return the plan of a run: sort the stages, compute their keys and look up existing results; writes nothing.

    Args:
        stages: stages of one recipe.
        store: folder of the results.
        accept_code_change: reuse earlier results whose only difference from a fresh run is the version of the code.
        codes: code version of each stage, by name; None computes them.

    Raises:
        InputError: two stages have the same name, stages depend on each other in a cycle, an input from outside the run
            is missing, or parameters are not JSON values.
        UnknownNameError: an input refers to an unknown stage.
    """
    ordered = tuple(_ordered(stages))
    outside = {source for stage in ordered for source in stage.inputs.values() if isinstance(source, Outside)}
    facts = Facts(
        ordered,
        codes or code_versions({stage.name: stage.run for stage in ordered}),
        {source: source.digest() for source in outside},
        accept_code_change,
    )
    return _plan(facts, Store(store))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _ordered(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Yield the stages in topological order, otherwise in the given order."""
    by_name = {stage.name: stage for stage in stages}
    if len(by_name) < len(stages):
        raise InputError(f"stage names should be distinct, found {', '.join(sorted(stage.name for stage in stages))}")
    for stage in stages:
        for name in stage.upstream:
            if name not in by_name:
                raise UnknownNameError(f"stage (an input of {stage.name})", name, by_name)
    sorter = graphlib.TopologicalSorter({stage.name: stage.upstream for stage in stages})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise InputError(
            f"stages should not depend on each other in a cycle, found {' <- '.join(error.args[1])}"
        ) from None
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
    """Return a stage with the key of its result, or with that of an earlier result which is accepted instead."""
    inputs: dict[str, tuple[Path, Mapping[str, str]]] = {}
    keys: dict[str, str] = {}
    code_free: dict[str, str] = {}
    for name, source in stage.inputs.items():
        match source:
            case Upstream(upstream, None):
                source_stage = earlier[upstream]
                inputs[name] = source_stage.folder, {"stage": upstream, "key": source_stage.key}
                keys[name], code_free[name] = source_stage.key, source_stage.code_free_key
            case Upstream(upstream, str(file)):
                keys[name] = code_free[name] = _file_digest(earlier[upstream], file, facts=facts, store=store)
                inputs[name] = earlier[upstream].folder / file, {"stage": upstream, "file": file, "sha256": keys[name]}
            case Outside(path):
                keys[name] = code_free[name] = facts.digests[source]
                inputs[name] = path.resolve(), {"path": str(path), "sha256": keys[name]}
    code = facts.codes[stage.name]
    key, code_free_key = _key(stage, keys, code), _key(stage, code_free, None)
    accepted = store.accepted(stage.name, key, code_free_key=code_free_key if facts.accept_code_change else None)
    accepts, key = (key, accepted["key"]) if accepted else (None, key)
    return PlannedStage(stage, key, code_free_key, accepts, code, inputs, store.result(stage.name, key))


def _file_digest(planned: PlannedStage, file: str, *, facts: Facts, store: Store) -> str:
    """Return the SHA-256 of a file in a stage's result, or of the input that the stage will copy it from.

    If neither is known yet, the return value is a placeholder; `refreshed` computes the digest after the stage has run.
    """
    stage = planned.stage
    if store.marker(stage.name, planned.key):
        return sha256_file(planned.folder / file)
    source = stage.inputs.get(stage.copies.get(file, ""))
    return facts.digests[source] if isinstance(source, Outside) else f"{planned.key}/{file}"


def _key(stage: Stage, inputs: Mapping[str, str], code: str | None) -> str:
    hashed = {"name": stage.name, "parameters": stage.parameters, "seed": stage.seed, "inputs": inputs}
    try:
        return hashlib.sha256(canonical_json(hashed | {"code_version": code}).encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise InputError(f"the parameters of stage {stage.name} should be finite JSON values: {error}") from None


def _with_states(stages: tuple[PlannedStage, ...], store: Store) -> tuple[PlannedStage, ...]:
    """Return the stages with their states; computed from last to first, since later stages need earlier results."""
    states: dict[str, State] = {}
    for planned in reversed(stages):
        name = planned.stage.name
        consumers = [other.stage.name for other in stages if name in other.stage.upstream]
        is_unneeded = planned.stage.dual_use and consumers and all(states[other] != "to do" for other in consumers)
        if store.marker(name, planned.key):
            states[name] = "kept" if planned.accepts else "reused"
        else:
            states[name] = "cleaned" if is_unneeded else "to do"
    return tuple(replace(planned, state=states[planned.stage.name]) for planned in stages)
