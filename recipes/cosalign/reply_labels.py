"""Labels candidate replies with their harms and whether they do what the request asks for."""

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
    """Return a row of `prompt`, `reply`, `harms` and `addressed` for each distinct reply, and counts.

    A reply without a label has `not_labelled` in place of `harms`, so that it never counts as harmless. A killed run
    resumes from the rows already in `out`.
    """
    messages = {row["id"]: row["messages"] for row in prompts}
    distinct = list(dict.fromkeys((row["prompt"], row["reply"]) for row in candidates))

    def label(row: Row) -> Row:
        try:
            reply_label = labeller.reply_label(messages[row["prompt"]], row["reply"])
        except NoVerdictError as error:
            return row | {NOT_LABELLED: str(error)}
        return row | {"harms": sorted(reply_label.harms), "addressed": reply_label.addressed}

    unlabelled: list[Row] = [{"prompt": prompt, "reply": reply} for prompt, reply in distinct]
    made_with = {"judge": [labeller.name, labeller.version]}
    labelled = label_rows(unlabelled, label, out=out, made_with=made_with, on_row=on_row)
    counts = Counter(given=len(candidates), distinct=len(labelled), unreadable=0, harmful=0, not_addressed=0)
    for row in labelled:
        counts["unreadable"] += NOT_LABELLED in row
        counts["harmful"] += bool(row.get("harms"))
        counts["not_addressed"] += row.get("addressed") is False
    return labelled, counts
