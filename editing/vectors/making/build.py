"""Writing a harm vector folder from harmful runs, with few tensors in memory (torch-free if the method is)."""

from collections.abc import Mapping
from pathlib import Path

from prosocial.core.errors import InputError
from prosocial.core.files import new_folder, write_json

from ..description import DESCRIPTION_NAME, WEIGHTS_NAME, Relatedness, Storage, VectorDescription, combine_parents
from ..methods.method import Method, Prepared
from ..methods.registry import METHODS, choose_method
from ..vector import HarmVector
from .runs import Runs
from .shaping import Shaping
from .writing import VectorWriting


def build_vector(runs: Runs, out: Path, *, method: str, parameters: Mapping[str, object]) -> HarmVector:
    """Shape the delta of each tensor by a method and write the vector folder.

    Args:
        runs: the harmful runs.
        out: path of the new vector folder.
        method: name of a method (`docs/methods.md`).
        parameters: parameters of the method.

    Raises:
        InputError: `out` exists; the method or a parameter is unknown; a delta is NaN or infinite; the parents are not
            related to the base, have different bases or do not differ from it; the method reverses the direction of a
            delta, or could do so.
    """
    chosen = choose_method(method, parameters)
    _check_steps(runs, method, chosen)
    with new_folder(out) as aside:
        prepared = chosen.prepare(runs, **parameters)
        with VectorWriting(runs, aside / WEIGHTS_NAME) as writing:
            for tensor in Shaping(runs, prepared, keep_factors=method == "plain").tensors():
                writing.add(tensor)
            writing.finish()
        write_json(aside / DESCRIPTION_NAME, _describe(runs, writing, method, prepared))
    return HarmVector.open(out)


def _check_steps(runs: Runs, name: str, method: Method) -> None:
    """Check that shaping saved vectors again cannot reverse their direction relative to the raw difference."""
    for step in runs.steps():
        safe = step.method == "plain" or (len(runs) == 1 and method.elementwise and _is_elementwise(step.method))
        if not safe:
            raise InputError(
                f"method {name} should be given unshaped differences, found a vector shaped by {step.method}, whose "
                "direction it could reverse: give the parents, or a vector made with --method plain"
            )


def _is_elementwise(method: str) -> bool:
    return method in METHODS and METHODS[method].elementwise


def _describe(runs: Runs, writing: VectorWriting, method: str, prepared: Prepared) -> dict[str, object]:
    parents = writing.parents()
    kinds, storages = {parent.kind for parent in parents}, {item.storage for item in writing.tensors.values()}
    kind: Storage = "low_rank" if "low_rank" in storages else "sparse" if "sparse" in storages else "dense"
    description = VectorDescription(
        kind=kind,
        base_fingerprint=runs.base_fingerprint(),
        harmful_kind=kinds.pop() if len(kinds) == 1 else "mixed",
        harmful_fingerprint=combine_parents(parents),
        harmful_parents=parents,
        shaped_from=runs.steps(),
        method=method,
        parameters=dict(prepared.parameters),
        relatedness=Relatedness.lowest(parent.relatedness for parent in parents),
        tensors=dict(sorted(writing.tensors.items())),
        left_out=writing.left_out,
        notes=runs.notes(),
    )
    return description.model_dump(mode="json", by_alias=True)
