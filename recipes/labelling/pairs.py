"""Labels per attribute for preference pairs, by one judge or two."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.protocols import Judge
from prosocial.training.reward.attributes import Attribute
from prosocial.training.reward.pairs import label_pair, pair_rows, replies_of

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
    """Label the pairs of `source` into `out` (JSONL) and return what came out, as plain JSON.

    The labels are the first judge's; a second one's stand beside them as `second_labels`. An attribute that a judge
    gave no score is labelled `missing`, and so are all where it gave no verdict at all.

    Raises:
        InputError: a pair does not hold, or a judge does not answer; what is labelled stays for the next run.
    """
    rows = pair_rows(source)
    conversations = [replies_of(row, where=f"{source} row {number}") for number, row in enumerate(rows, start=1)]
    names = [attribute.name for attribute in attributes]

    def label(row: Row) -> Row:
        messages, first, second = replies_of(row, where=str(source))
        found = [
            dict(label_pair(messages, first, second, judge=judge, attributes=names, tie_margin=tie_margin).labels)
            for judge in judges
        ]
        keys = ("labels", "second_labels")
        given: Row = {"messages": list(messages), "first": first, "second": second}
        return given | dict(zip(keys, found, strict=False))

    made_with = {
        "judges": [[judge.name, judge.version] for judge in judges],
        "rubrics": {attribute.name: attribute.rubric for attribute in attributes},
        "tie_margin": tie_margin,
    }
    asked: list[Row] = [{"messages": list(m), "first": first, "second": second} for m, first, second in conversations]
    labelled = label_rows(asked, label, out=out, made_with=made_with, on_row=on_row)
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
