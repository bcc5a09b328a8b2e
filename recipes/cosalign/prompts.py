"""Selects training prompts: distinct, absent from the evaluation sets, and balanced over the harms they ask for."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from prosocial.core.errors import NoVerdictError
from prosocial.core.row_files import read_rows
from prosocial.core.settings import Count, Settings
from prosocial.core.training_rows import prompt_of
from prosocial.steering.configs.category_registry import NEVER_ALLOWED

from ..labelling.labellers import Labeller
from ..labelling.replies import NOT_LABELLED
from ..labelling.rows import label_rows
from .contamination import ContaminationSettings, Duplicate, find_duplicates, normalised
from .rows import Row


class PromptSettings(Settings):
    """Which prompts are trained on.

    Attributes:
        most: maximum number of prompts; None for no limit.
        most_per_set: maximum number of prompts that ask for the same set of harms; None for no limit.
        outside: what to do with prompts that ask for a harm which no training config allows: `other` keeps them and
            counts the harm as `other`, which is always refused; `drop` leaves them out.
    """

    most: Count | None = None
    most_per_set: Count | None = 2500
    outside: Literal["other", "drop"] = "other"


def read_prompts(path: Path) -> list[Row]:
    """Return the `id` (row number, from 1) and `messages` of rows, as `prosocial.core.training_rows.prompt_of` reads.

    Raises:
        InputError: a row has no prompt.
    """
    return [
        {"id": str(number), "messages": list(prompt_of(row, where=f"{path} row {number}"))}
        for number, row in enumerate(read_rows(path), start=1)
    ]


def request_text(row: Row) -> str:
    """Return the last user turn of a row's conversation."""
    return next((str(turn["content"]) for turn in reversed(row["messages"]) if turn["role"] == "user"), "")


def distinct_prompts(prompts: Iterable[Row]) -> list[Row]:
    """Return the prompts without later ones that differ only in case, punctuation or compatible characters."""
    distinct: dict[str, Row] = {}
    for row in prompts:
        distinct.setdefault(normalised(request_text(row)), row)
    return list(distinct.values())


def drop_contaminated(
    prompts: Sequence[Row], evaluation: Sequence[str], settings: ContaminationSettings
) -> tuple[list[Row], list[Duplicate]]:
    """Return the prompts that duplicate no evaluation prompt, and the duplicates that were dropped."""
    duplicates = find_duplicates([request_text(row) for row in prompts], evaluation, settings)
    dropped = {each.index for each in duplicates}
    return [row for number, row in enumerate(prompts) if number not in dropped], duplicates


def label_prompts(
    prompts: Sequence[Row], labeller: Labeller, *, out: Path, on_row: Callable[[], None] = lambda: None
) -> list[Row]:
    """Return the prompts with the `harms` that they ask for, or with the reason why the labeller gave none.

    A killed run resumes from the rows already in `out`.
    """

    def label(row: Row) -> Row:
        try:
            return row | {"harms": sorted(labeller.request_harms(row["messages"]))}
        except NoVerdictError as error:
            return row | {NOT_LABELLED: str(error)}

    return label_rows(prompts, label, out=out, made_with={"judge": [labeller.name, labeller.version]}, on_row=on_row)


def choose_prompts(
    labelled: Iterable[Row], pool: Sequence[str], settings: PromptSettings
) -> tuple[list[Row], Counter[str]]:
    """Return the labelled prompts to train on, and counts of the others by the reason why they were left out.

    Harms outside `pool`, the categories that configs may allow, count as `other`.
    """
    chosen: list[Row] = []
    counts = Counter({"unreadable": 0, "outside": 0, "beyond_the_set": 0})
    sizes: Counter[tuple[str, ...]] = Counter()
    for row in labelled:
        if NOT_LABELLED in row:
            counts["unreadable"] += 1
            continue
        if settings.outside == "drop" and not set(row["harms"]) <= {*pool, NEVER_ALLOWED}:
            counts["outside"] += 1
            continue
        harms = tuple(sorted({name if name in pool else NEVER_ALLOWED for name in row["harms"]}))
        if settings.most_per_set is not None and sizes[harms] >= settings.most_per_set:
            counts["beyond_the_set"] += 1
            continue
        sizes[harms] += 1
        chosen.append(row | {"harms": list(harms)})
    return chosen[: settings.most], counts
