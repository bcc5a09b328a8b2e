"""Labels replies with harm categories, with one or two judges."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.errors import NoVerdictError
from prosocial.core.protocols import Judge
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import reply_of
from prosocial.training.gate.replies import label_reply, require_known

from .agreement import agreement
from .rows import Row, label_rows

NOT_LABELLED = "not_labelled"


def label_replies(
    source: Path,
    *,
    out: Path,
    judges: Sequence[Judge],
    categories: Sequence[str],
    on_row: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Label the replies of `source`, write them to `out` (JSONL) and return a summary as JSON values.

    The rows are those of `prosocial.core.training_rows.reply_of`. The first judge's labels are written as `categories`,
    those of a second judge as `second_categories`. A reply without a verdict of the first judge has no `categories`, so
    that it never counts as harmless.

    Raises:
        InputError: a row is malformed, a judge returns a category that is not in `categories`, or a judge does not
            answer; the labels so far are kept for the next run.
    """
    unlabelled: list[Row] = []
    for number, row in enumerate(read_rows(source), start=1):
        messages, reply = reply_of(row, where=f"{source} row {number}")
        unlabelled.append({"messages": list(messages), "reply": reply})

    def label(row: Row) -> Row:
        labels = [_labels(judge, row, categories) for judge in judges]
        second = {"second_categories": labels[1].get("categories")} if len(labels) > 1 else {}
        return row | labels[0] | second

    made_with = {"judges": [[judge.name, judge.version] for judge in judges], "categories": list(categories)}
    labelled = label_rows(unlabelled, label, out=out, made_with=made_with, on_row=on_row)
    known = [row["categories"] for row in labelled if NOT_LABELLED not in row]
    return {
        "replies": len(labelled),
        "judges": made_with["judges"],
        "not_labelled": len(labelled) - len(known),
        "harmful": sum(bool(labels) for labels in known),
        "categories": {name: sum(name in labels for labels in known) for name in categories},
        "agreement": _agreements(labelled, categories) if len(judges) > 1 else None,
    }


def _labels(judge: Judge, row: Row, categories: Sequence[str]) -> Row:
    try:
        labelled = label_reply(row["messages"], row["reply"], judge=judge)
    except NoVerdictError as error:
        return {NOT_LABELLED: str(error)}
    require_known(labelled.categories, categories, judge=judge)
    return {"categories": sorted(labelled.categories), "spans": [list(span) for span in labelled.spans]}


def _agreements(rows: Sequence[Row], categories: Sequence[str]) -> dict[str, Any]:
    def of(row: Row, key: str, name: str) -> bool | None:
        labels: list[str] | None = row.get(key)
        return None if labels is None else name in labels

    return {
        name: agreement(
            [of(row, "categories", name) for row in rows], [of(row, "second_categories", name) for row in rows]
        ).to_json()
        for name in categories
    }
