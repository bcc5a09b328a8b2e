"""Candidate replies with their harms and whether they do what was asked, each distinct one labelled once."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from prosocial.core.errors import NoVerdictError

from ..labelling.labellers import Labeller
from ..labelling.replies import NOT_LABELLED
from ..labelling.rows import label_rows
from .rows import Row


def label_candidates(
    candidates: Sequence[Row],
    prompts: Sequence[Row],
    labeller: Labeller,
    *,
    out: Path,
    on_row: Callable[[], None] = lambda: None,
) -> tuple[list[Row], Counter[str]]:
    """Return rows of `prompt`, `reply`, `harms`, `addressed`, and counts; resumable by `out`.

    A reply that the labeller gives no label has `not_labelled` in the place of `harms`: nothing takes it for harmless.
    """
    messages = {row["id"]: row["messages"] for row in prompts}
    distinct = list(dict.fromkeys((row["prompt"], row["reply"]) for row in candidates))

    def label(row: Row) -> Row:
        try:
            found = labeller.reply_label(messages[row["prompt"]], row["reply"])
        except NoVerdictError as error:
            return row | {NOT_LABELLED: str(error)}
        return row | {"harms": sorted(found.harms), "addressed": found.addressed}

    asked: list[Row] = [{"prompt": prompt, "reply": reply} for prompt, reply in distinct]
    made_with = {"judge": [labeller.name, labeller.version]}
    labelled = label_rows(asked, label, out=out, made_with=made_with, on_row=on_row)
    counts = Counter(given=len(candidates), distinct=len(labelled), unreadable=0, harmful=0, not_addressed=0)
    for row in labelled:
        counts["unreadable"] += NOT_LABELLED in row
        counts["harmful"] += bool(row.get("harms"))
        counts["not_addressed"] += row.get("addressed") is False
    return labelled, counts
