"""Stages, the steps of a recipe: each turns named inputs into one artefact folder (torch-free)."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json, sha256_file
from prosocial.core.placement import Placement
from prosocial.core.progress import Progress

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Upstream:
    """An input from another stage of the same run: its result, or one file of it.

    A file is identified by its content: if the other stage changes but the file does not, the reader is not run again.

    Attributes:
        stage: name of the other stage.
        file: name of the file in its result; None for the whole result.
    """

    stage: str
    file: str | None = None


@dataclass(frozen=True)
class Outside:
    """An input from outside the run: a file or a folder, identified by its content."""

    path: Path

    def digest(self) -> str:
        """Return the SHA-256 of the file, or of the folder's sorted lines `relative path, size, sha256`.

        Raises:
            InputError: the path does not exist, or the folder contains a link to another folder.
        """
        if self.path.is_file():
            return sha256_file(self.path)
        if not self.path.is_dir():
            raise InputError(
                f"an input should be an existing file or folder, found nothing at {self.path}: check the path"
            )
        rows = [(str(name), path.stat().st_size, sha256_file(path)) for name, path in _files(self.path)]
        return hashlib.sha256(canonical_json(rows).encode()).hexdigest()


Source = Upstream | Outside


@dataclass(frozen=True)
class StageContext:
    """The arguments of a running stage.

    Attributes:
        out: empty folder for the artefact; it is renamed to its final name when the stage returns.
        inputs: path of each input, by input name.
        parameters: parameters of the stage.
        scratch: folder that survives a killed run, to resume from; deleted when the stage succeeds.
        progress: progress display of the stage.
        seed: seed of everything random in the stage.
        device: device of the stage's models; results do not depend on it but for rounding.
    """

    out: Path
    inputs: Mapping[str, Path]
    parameters: Mapping[str, Any]
    scratch: Path
    progress: Progress
    seed: int
    device: str = "cpu"

    @property
    def placement(self) -> Placement:
        """Where the stage's models lie, in the dtype of its parameters."""
        return Placement(self.device, self.parameters["dtype"])


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe: a function of only its inputs, parameters, seed and code.

    Args:
        name: lower-case words joined by hyphens, such as `gate`; part of the name of the result folder.
        title: one-line description for the plan and the progress display.
        run: does the work, writes into `context.out` and returns a one-line summary of the result. The stage's code
            version covers all code of the package that it can reach.
        inputs: source of each input, by input name.
        parameters: JSON values; of a stage that runs models in torch, `dtype` is theirs.
        copies: for files of the result that are copies of an input, the name of the input by file name; so stages that
            read such a file have their key before this stage has run.
        seed: seed, part of the key and passed to `run`.
        estimate_bytes: estimated disk space; checked before the stage starts.
        estimate_seconds: estimated time, shown in the plan.
        estimate_memory_bytes: estimated peak memory of a process that runs only this stage, shown in the plan.
        needs: packages that it imports; a run checks that they are installed before its first stage.
        dual_use: whether the result could do harm (a harm vector, a harmful checkpoint): `run --clean` deletes it, and
            it is not computed again while all results computed from it exist.

    Raises:
        InputError: the name is malformed.
    """

    name: str
    title: str
    run: Callable[[StageContext], str]
    inputs: Mapping[str, Source] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    estimate_bytes: int | None = None
    estimate_seconds: float | None = None
    estimate_memory_bytes: int | None = None
    needs: tuple[str, ...] = ()
    dual_use: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(f"a stage name should be lower-case words joined by hyphens, found {self.name!r}")

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the stages whose results this one reads."""
        return tuple(source.stage for source in self.inputs.values() if isinstance(source, Upstream))


def _files(folder: Path) -> list[tuple[str, Path]]:
    files: list[tuple[str, Path]] = []
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise InputError(
                    f"{folder} should have no links to folders, found {Path(parent, name)}: copy the folder in"
                )
        files += [(Path(parent, name).relative_to(folder).as_posix(), Path(parent, name)) for name in names]
    return sorted(files)
