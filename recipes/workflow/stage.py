"""What a recipe is made of: stages that each turn named inputs into one artefact folder (torch-free)."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError
from prosocial.core.files import canonical_json, sha256_file
from prosocial.core.progress import Progress

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Upstream:
    """An input that another stage of the same run makes: its result, or one file of it, which its content stands for.

    A change of the stage that leaves the file as it was changes nothing for whoever reads the file.
    """

    stage: str
    file: str | None = None


@dataclass(frozen=True)
class Outside:
    """An input from outside the run: a file or a folder, known by its content."""

    path: Path

    def digest(self) -> str:
        """Return the SHA-256 of the file, or of the folder's sorted lines `relative path, size, sha256`.

        Raises:
            InputError: the path does not exist, or the folder holds a link to a folder (its content would go unseen).
        """
        if self.path.is_file():
            return sha256_file(self.path)
        if not self.path.is_dir():
            raise InputError(f"an input should be a file or a folder: there is none at {self.path}")
        rows = [(str(name), path.stat().st_size, sha256_file(path)) for name, path in _files(self.path)]
        return hashlib.sha256(canonical_json(rows).encode()).hexdigest()


Source = Upstream | Outside


@dataclass(frozen=True)
class StageContext:
    """What a stage is given to work with.

    Attributes:
        out: an empty folder to write the artefact into; it appears under its final name when the stage returns.
        inputs: where each input of the stage lies, by input name.
        parameters: the stage's parameters.
        scratch: a folder that outlives a killed run, to resume from; deleted when the stage succeeds.
        progress: tells people how far the stage is.
        seed: the seed of everything random in the stage.
    """

    out: Path
    inputs: Mapping[str, Path]
    parameters: Mapping[str, Any]
    scratch: Path
    progress: Progress
    seed: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe: a function of its inputs, parameters, seed and code, and of nothing else.

    Args:
        name: lower-case words joined by hyphens, such as `gate`; names the result folder.
        title: one line for people.
        run: does the work, writes into `context.out` and returns one line for people that says what came out. All code
            of the package that it can reach is its code version.
        inputs: where each input comes from, by input name.
        parameters: JSON values.
        copies: which files of the result are copies of which inputs, by file name: what reads such a file has its key
            before this stage has run.
        seed: goes into the key and to `run`.
        estimate_bytes: disk space that the stage needs; checked before it starts.
        estimate_seconds: for the plan that people read.
        dual_use: the result could do harm (a harm vector, a harmful checkpoint): `run --clean` deletes it, and it is
            not made again while everything made from it is there.

    Raises:
        InputError: the name has another form.
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
    dual_use: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(f"a stage name should be lower-case words joined by hyphens, found {self.name!r}")

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the stages whose results this one reads."""
        return tuple(source.stage for source in self.inputs.values() if isinstance(source, Upstream))


def _files(folder: Path) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if Path(parent, name).is_symlink():
                raise InputError(f"{folder} should not hold links to folders, found {Path(parent, name)}: copy it in")
        found += [(Path(parent, name).relative_to(folder).as_posix(), Path(parent, name)) for name in names]
    return sorted(found)
