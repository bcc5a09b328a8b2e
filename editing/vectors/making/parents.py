"""A harm vector from any harmful parents: checkpoints, adapters and saved vectors, one or several."""

from collections.abc import Sequence
from pathlib import Path

from prosocial.core.errors import InputError

from ...checkpoints.folder import Checkpoint
from ..adapter_config import CONFIG_NAME
from ..description import DESCRIPTION_NAME
from ..vector import HarmVector
from .base import Base
from .build import build_vector
from .checkpoint_source import CheckpointPair
from .runs import HarmfulRun, Runs


def make_vector(
    harmful: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    base: Path | str | None = None,
    method: str = "plain",
    **parameters: object,
) -> HarmVector:
    """Make one harm vector of one or several harmful runs over the same base.

    Methods shape the mean of the runs; `ties` and `negmerge` look at each run.

    Args:
        harmful: one folder or several, each a checkpoint, a LoRA adapter or a saved harm vector.
        out: the new vector folder.
        base: the checkpoint that the runs started from; may be None where all are saved vectors.
        method: a name of the registry (`docs/methods.md`).
        parameters: of the method.

    Raises:
        ArtefactError: a folder is none of these, or is quantised, or an adapter is of an unknown variant.
        FingerprintError: the runs have different bases.
        InputError: no run, or one given twice; a base is needed and missing; names, shapes or dtypes do not fit; NaN or
            infinity; unrelated or equal parents; `out` exists; a saved vector that this method could turn round.
    """
    folders = [Path(each) for each in ([harmful] if isinstance(harmful, str | Path) else harmful)]
    shared = None if base is None else Base(Checkpoint.open(base))
    runs = Runs([_open_run(folder, shared) for folder in folders])
    if shared is not None and all((folder / DESCRIPTION_NAME).is_file() for folder in folders):
        runs.check_base(shared.fingerprint())
    return build_vector(runs, Path(out), method=method, parameters=parameters)


vector_from_runs = make_vector  # its name in 0.1.0


def _open_run(folder: Path, base: Base | None) -> HarmfulRun:
    if (folder / DESCRIPTION_NAME).is_file():
        from .vector_source import VectorSource

        return VectorSource(folder)
    if base is None:
        raise InputError(f"a base should be given for {folder}, which is no saved vector: there is none; give --base")
    if (folder / CONFIG_NAME).is_file():
        from .adapter_source import AdapterSource

        return AdapterSource(base, folder)
    return CheckpointPair(base, Checkpoint.open(folder))
