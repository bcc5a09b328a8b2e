"""What an edit record states besides weights and coefficients: checked where possible, else named as unverified."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.files import read_json
from prosocial.editing.checkpoints.digests import TensorDigest
from prosocial.editing.checkpoints.folder import INDEX_NAME, Checkpoint
from prosocial.editing.edits.realised import Realised
from prosocial.editing.edits.record import RECORD_NAME, Base, EditRecord, Term
from prosocial.editing.vectors.description import VectorDescription

from .side_files import changes_output

COPIED = ("storage", "base_fingerprint", "harmful_kind", "harmful_fingerprint", "method", "parameters")
MEASURES = ("gain", "unchanged_share", "relative_change", "cosine", "relative_error")
SIGNATURES = "signatures/"  # statements about the folder, which are checked with a key
RELATIVE, ABSOLUTE = 1e-3, 1e-7  # sums of fp32 numbers differ between processors, far less than this
# What level 2 recomputes, in words; without it the record alone states these.
RECOMPUTED = ("base", "vectors and coefficients", "arithmetic", "untouched tensors", "inner product", "gains")


def against_vector(term: Term, made: VectorDescription) -> Iterator[str]:
    """Yield what a term copies from its vector's description, and states otherwise."""
    expected = {"storage": made.kind} | {name: getattr(made, name) for name in COPIED[1:]}
    for name in COPIED:
        if getattr(term, name) != expected[name]:
            yield f"{name} of the vector: {_differ(getattr(term, name), expected[name])}"


def against_base(stated: Base, base: Checkpoint) -> Iterator[str]:
    """Yield what a record states about the base's dtypes and earlier edit that its files contradict."""
    if stated.dtypes != base.n_by_dtype:
        yield f"dtypes of the base: {_differ(stated.dtypes, base.n_by_dtype)}"
    if stated.previous is None:
        return
    result = stated.previous.get("result")
    fingerprint = result.get("fingerprint") if isinstance(result, dict) else None
    if fingerprint != stated.fingerprint:
        yield f"earlier edit: its result should be the base {stated.fingerprint[:16]}, found {fingerprint!r:.20}"
    elif _own_record(base.folder) not in (None, stated.previous):
        yield f"earlier edit: differs from {RECORD_NAME} of the base"


def against_measures(
    record: EditRecord, realised: Mapping[str, Realised], before: Mapping[str, str], after: Mapping[str, TensorDigest]
) -> Iterator[str]:
    """Yield the measures of the change that differ from the recomputed ones.

    Args:
        record: the record.
        realised: the recomputed sums of each edited tensor.
        before: digest of each tensor of the base.
        after: digest of each tensor of the model.
    """
    for name, stated in record.result.tensors.items():
        if name in before and stated.changed != (before[name] != after[name].blake3):
            yield f"{name}: changed: {_differ(stated.changed, not stated.changed)}"
        for measure in MEASURES:
            value = getattr(realised[name], measure) if name in realised else None
            if not _close(getattr(stated, measure), value):
                yield f"{name}: {measure}: {_differ(getattr(stated, measure), value)}"
    along = math.fsum(each.inner_product for each in realised.values())
    if not _close(record.result.inner_product, along):
        yield f"inner product: {_differ(record.result.inner_product, along)}"


def unverified(record: EditRecord, checkpoint: Checkpoint, *, recomputed: bool) -> Sequence[str]:
    """Return what only the record states, in words.

    Args:
        record: the record.
        checkpoint: the model.
        recomputed: whether level 2 has recomputed the edit from base and vector.
    """
    return list(_unverified(record, checkpoint, recomputed))


def unlisted(record: EditRecord, checkpoint: Checkpoint) -> list[str]:
    """Return the files of a model that the record should list and does not, if they can change its output."""
    return [path for path in _unlisted(record, checkpoint) if changes_output(path)]


def _unverified(record: EditRecord, checkpoint: Checkpoint, recomputed: bool) -> Iterator[str]:
    yield f"tool: {record.tool.name} {record.tool.version}"
    if not recomputed:
        yield from RECOMPUTED
    for term in record.terms:
        made = f"{term.method} {term.parameters}" if term.parameters else term.method
        yield f"how the vector was made: {made}, from {term.harmful_kind} {term.harmful_fingerprint[:16]}"
        patterns = [group.pattern for group in term.coefficients if group.pattern is not None]
        if patterns:
            yield f"how the tensors were selected: {', '.join(patterns)}"
    if record.base.previous is not None:
        yield "the earlier edit of the base"
    others = [path for path in _unlisted(record, checkpoint) if not changes_output(path)]
    if others:
        yield f"files that the record does not list: {', '.join(others)}"


def _unlisted(record: EditRecord, checkpoint: Checkpoint) -> Iterable[str]:
    listed = {*record.result.side_files, INDEX_NAME}
    return (path for path in checkpoint.side_files if path not in listed and not path.startswith(SIGNATURES))


def _own_record(folder: Path) -> dict[str, Any] | None:
    return read_json(folder / RECORD_NAME) if (folder / RECORD_NAME).is_file() else None


def _close(stated: float | None, value: float | None) -> bool:
    if stated is None or value is None:
        return stated is value
    return math.isclose(stated, value, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _differ(stated: object, actual: object) -> str:
    return f"the record states {stated!s:.80}, it is {actual!s:.80}"
