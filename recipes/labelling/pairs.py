"""Labels preference pairs per attribute, with one or two judges."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.protocols import Judge
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import pair_of
from prosocial.training.reward.attributes import Attribute
from prosocial.training.reward.pairs import label_pair

from .agreement import agreement
from .rows import Row, label_rows


def label_pairs(
    source: Path,
    *,
    out: Path,
    judges: Sequence[Judge],
    attributes: Sequence[Attribute],
    tie_margin: float,
    on_row: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Label the pairs of `source`, write them to `out` (JSONL) and return a summary as JSON values.

    The first judge's labels are written as `labels`, those of a second judge as `second_labels`. An attribute without a
    score is labelled `missing`; without any verdict, all attributes are.

    Raises:
        InputError: a pair is malformed, or a judge does not answer; the labels so far are kept for the next run.
    """
    pairs = [pair_of(row, where=f"{source} row {number}") for number, row in enumerate(read_rows(source), start=1)]
    names = [attribute.name for attribute in attributes]

    def label(row: Row) -> Row:
        messages, first, second = row["messages"], row["first"], row["second"]
        labels = [
            dict(label_pair(messages, first, second, judge=judge, attributes=names, tie_margin=tie_margin).labels)
            for judge in judges
        ]
        keys = ("labels", "second_labels")
        return row | dict(zip(keys, labels, strict=False))

    made_with = {
        "judges": [[judge.name, judge.version] for judge in judges],
        "rubrics": {attribute.name: attribute.rubric for attribute in attributes},
        "tie_margin": tie_margin,
    }
    unlabelled: list[Row] = [{"messages": list(m), "first": first, "second": second} for m, first, second in pairs]
    labelled = label_rows(unlabelled, label, out=out, made_with=made_with, on_row=on_row)
    return {
        "pairs": len(labelled),
        "judges": made_with["judges"],
        "labels": {name: dict(Counter(row["labels"][name] for row in labelled)) for name in names},
        "agreement": _agreements(labelled, names) if len(judges) > 1 else None,
    }


def _agreements(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    def of(row: Row, key: str, name: str) -> str | None:
        label: str = row[key][name]
        return None if label == "missing" else label

    return {
        name: agreement(
            [of(row, "labels", name) for row in rows], [of(row, "second_labels", name) for row in rows]
        ).to_json()
        for name in names
    }
