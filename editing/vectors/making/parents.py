"""A harm vector from one or several harmful runs: checkpoints, adapters and saved vectors in any mix."""

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
    """Make one harm vector from one or several harmful runs of the same base.

    Methods shape the mean of the runs, except `ties` and `negmerge`, which use each run.

    Args:
        harmful: one folder, or one for each run: a checkpoint, a LoRA adapter or a saved harm vector.
        out: path of the new vector folder.
        base: folder of the checkpoint that the runs started from; may be None if all runs are saved vectors.
        method: name of a method (`docs/methods.md`).
        parameters: parameters of the method.

    Raises:
        ArtefactError: a folder is none of these or is quantised, or an adapter is an unsupported variant.
        FingerprintError: the runs have different bases.
        InputError: there is no run, or one is given twice; the base is needed and missing; names, shapes or dtypes
            differ; a delta is NaN or infinite; the parents are unrelated or equal; `out` exists; the method could
            reverse the direction of a saved vector.
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
        raise InputError(
            f"a base should be given for {folder}, which is not a saved vector: there is none; give --base"
        )
    if (folder / CONFIG_NAME).is_file():
        from .adapter_source import AdapterSource

        return AdapterSource(base, folder)
    return CheckpointPair(base, Checkpoint.open(folder))
