"""Training prompts: distinct, in no evaluation set, labelled with the harms that they ask for, few of a label set."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from prosocial.core.errors import NoVerdictError
from prosocial.core.files import read_jsonl
from prosocial.core.settings import Count, Settings
from prosocial.steering.configs.category_registry import NEVER_ALLOWED
from prosocial.training.reward.pairs import messages_of

from ..labelling.labellers import Labeller
from ..labelling.replies import NOT_LABELLED
from ..labelling.rows import label_rows
from .contamination import ContaminationSettings, Duplicate, find_duplicates, normalised
from .rows import Row


class PromptSettings(Settings):
    """Which prompts are trained on.

    Attributes:
        most: of all; None: no end. most_per_set: of those that ask for the same harms.
        outside: what becomes of prompts that ask for a harm which no training config allows: `other` keeps them, the
            harm counting as `other`, which is always refused; `drop` leaves them out.
    """

    most: Count | None = None
    most_per_set: Count | None = 2500
    outside: Literal["other", "drop"] = "other"


def read_prompts(path: Path) -> list[Row]:
    """Return rows of `id` and `messages` from JSONL rows with `prompt` or `messages`.

    Raises:
        InputError: a row has neither.
    """
    return [
        {"id": str(number), "messages": list(messages_of(row, where=f"{path} row {number}"))}
        for number, row in enumerate(read_jsonl(path), start=1)
    ]


def request_text(row: Row) -> str:
    """Return the last user turn of a row's conversation."""
    return next((str(turn["content"]) for turn in reversed(row["messages"]) if turn["role"] == "user"), "")


def distinct_prompts(prompts: Iterable[Row]) -> list[Row]:
    """Return the first of all prompts that differ in case, punctuation or the forms of letters alone."""
    found: dict[str, Row] = {}
    for row in prompts:
        found.setdefault(normalised(request_text(row)), row)
    return list(found.values())


def drop_contaminated(
    prompts: Sequence[Row], evaluation: Sequence[str], settings: ContaminationSettings
) -> tuple[list[Row], list[Duplicate]]:
    """Return the prompts that no evaluation prompt equals or nearly equals, and the others as duplicates."""
    found = find_duplicates([request_text(row) for row in prompts], evaluation, settings)
    gone = {one.index for one in found}
    return [row for number, row in enumerate(prompts) if number not in gone], found


def label_prompts(
    prompts: Sequence[Row], labeller: Labeller, *, out: Path, on_row: Callable[[], None] = lambda: None
) -> list[Row]:
    """Return the prompts with the `harms` that they ask for, or with why the labeller gave none; resumable by `out`."""

    def label(row: Row) -> Row:
        try:
            return row | {"harms": sorted(labeller.request_harms(row["messages"]))}
        except NoVerdictError as error:
            return row | {NOT_LABELLED: str(error)}

    return label_rows(prompts, label, out=out, made_with={"judge": [labeller.name, labeller.version]}, on_row=on_row)


def choose_prompts(
    labelled: Iterable[Row], pool: Sequence[str], settings: PromptSettings
) -> tuple[list[Row], Counter[str]]:
    """Return labelled prompts for a pool of categories that configs may allow, and why others were left out."""
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
