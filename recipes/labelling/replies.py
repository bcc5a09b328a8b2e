"""Harm categories for replies, by one judge or two."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError, NoVerdictError
from prosocial.core.files import read_jsonl
from prosocial.core.protocols import Judge
from prosocial.training.gate.replies import label_reply, require_known
from prosocial.training.reward.pairs import messages_of

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
    """Label the replies of `source` (rows with `prompt` or `messages`, and `reply`) into `out`; return what came out.

    The labels are the first judge's; a second one's categories stand beside them as `second_categories`. A reply that
    the first judge gave no verdict on is written without `categories`, so that nothing takes it for harmless.

    Raises:
        InputError: a row does not hold, a judge names a category that is not asked for, or a judge does not answer;
            what is labelled stays for the next run.
    """
    asked: list[Row] = []
    for number, row in enumerate(read_jsonl(source), start=1):
        where = f"{source} row {number}"
        if not isinstance(row.get("reply"), str):
            raise InputError(f"{where} should have a text `reply`, found {sorted(row)}")
        asked.append({"messages": list(messages_of(row, where=where)), "reply": row["reply"]})

    def label(row: Row) -> Row:
        found = [_labels(judge, row, categories) for judge in judges]
        second = {"second_categories": found[1].get("categories")} if len(found) > 1 else {}
        return row | found[0] | second

    made_with = {"judges": [[judge.name, judge.version] for judge in judges], "categories": list(categories)}
    labelled = label_rows(asked, label, out=out, made_with=made_with, on_row=on_row)
    known = [row["categories"] for row in labelled if NOT_LABELLED not in row]
    return {
        "replies": len(labelled),
        "judges": made_with["judges"],
        "not_labelled": len(labelled) - len(known),
        "harmful": sum(bool(found) for found in known),
        "categories": {name: sum(name in found for found in known) for name in categories},
        "agreement": _agreements(labelled, categories) if len(judges) > 1 else None,
    }


def _labels(judge: Judge, row: Row, categories: Sequence[str]) -> Row:
    try:
        found = label_reply(row["messages"], row["reply"], judge=judge)
    except NoVerdictError as error:
        return {NOT_LABELLED: str(error)}
    require_known(found.categories, categories, judge=judge)
    return {"categories": sorted(found.categories), "spans": [list(span) for span in found.spans]}


def _agreements(rows: Sequence[Row], categories: Sequence[str]) -> dict[str, Any]:
    def of(row: Row, key: str, name: str) -> bool | None:
        found: list[str] | None = row.get(key)
        return None if found is None else name in found

    return {
        name: agreement(
            [of(row, "categories", name) for row in rows], [of(row, "second_categories", name) for row in rows]
        ).to_json()
        for name in categories
    }
