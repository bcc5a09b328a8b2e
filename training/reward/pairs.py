"""Labelled preference pairs: one prompt, two replies, and for each attribute a label which reply is better."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.files import require_keys, write_jsonl
from prosocial.core.protocols import Judge, Message
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import pair_of

Label = Literal["first", "second", "tie", "missing"]
LABELS: tuple[str, ...] = get_args(Label)
SIGN_OF_LABEL: dict[str, float] = {"first": 1.0, "second": -1.0, "tie": 0.0, "missing": 0.0}


@dataclass(frozen=True)
class Pair:
    """Two replies to one conversation, with labels.

    Attributes:
        messages: messages of the conversation.
        first: text of the first reply.
        second: text of the second reply.
        labels: label by attribute name.
    """

    messages: tuple[Message, ...]
    first: str
    second: str
    labels: dict[str, Label]

    def signs(self, attributes: Sequence[str]) -> list[float]:
        """Return, for each attribute, +1 if the first reply is better, -1 if the second is, 0 for a tie or no label."""
        return [SIGN_OF_LABEL[self.labels.get(name, "missing")] for name in attributes]


def read_pairs(source: Path | str, *, attributes: Sequence[str]) -> list[Pair]:
    """Read labelled pairs: rows of `prosocial.core.training_rows.pair_of` with `labels`.

    Args:
        source: a file or folder that `prosocial.core.row_files.read_rows` reads.
        attributes: names of the attributes that labels may use.

    Raises:
        InputError: a key is missing, both replies are equal, or a label is not one of first, second, tie, missing.
        UnknownNameError: a label's attribute is not in `attributes`.
    """
    return pairs_of(read_rows(source), attributes=attributes, where=str(source))


def pairs_of(rows: Iterable[Mapping[str, Any]], *, attributes: Sequence[str], where: str = "the pairs") -> list[Pair]:
    """Return pairs from rows such as those of a `datasets` data set; see `read_pairs` for keys and errors.

    Examples:
        >>> row = {"prompt": "I am sad.", "first": "Oh no.", "second": "Cheer up!", "labels": {"empathy": "first"}}
        >>> pairs_of([row], attributes=["empathy"])[0].signs(["empathy"])
        [1.0]
    """
    return [
        _pair(row, attributes=attributes, where=f"{where} row {number}") for number, row in enumerate(rows, start=1)
    ]


def require_labels(pairs: Sequence[Pair], attributes: Sequence[str]) -> None:
    """Raise InputError unless some pair has a label for each attribute that prefers one of its replies."""
    labelled = {name for pair in pairs for name in pair.labels if SIGN_OF_LABEL[pair.labels[name]]}
    unlabelled = [name for name in attributes if name not in labelled]
    if unlabelled:
        raise InputError(
            f"every attribute should have labelled pairs, found none for {', '.join(unlabelled)}: label or omit it"
        )


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as a JSONL file that `read_pairs` can read."""
    rows = [
        {"messages": list(pair.messages), "first": pair.first, "second": pair.second, "labels": pair.labels}
        for pair in pairs
    ]
    write_jsonl(path, rows)


def label_pair(
    messages: Sequence[Message],
    first: str,
    second: str,
    *,
    judge: Judge,
    attributes: Sequence[str],
    tie_margin: float = 0.05,
) -> Pair:
    """Label two replies by a judge's scores; scores that differ by at most `tie_margin` are a tie.

    The label is `missing` if the judge gave no score for the attribute, or could not judge a reply.
    """
    judgements = [judge.judge(messages, reply) for reply in (first, second)]
    scores = [judgement.attributes if judgement.error is None else {} for judgement in judgements]
    labels = {name: _label(scores[0].get(name), scores[1].get(name), tie_margin) for name in attributes}
    return Pair(tuple(messages), first, second, labels)


def _label(first: float | None, second: float | None, tie_margin: float) -> Label:
    if first is None or second is None:
        return "missing"
    if abs(first - second) <= tie_margin:
        return "tie"
    return "first" if first > second else "second"


def _pair(row: Mapping[str, Any], *, attributes: Sequence[str], where: str) -> Pair:
    messages, first, second = pair_of(row, where=where)
    require_keys(row, ("labels",), where=where)
    if not isinstance(row["labels"], dict):
        raise InputError(f"{where}: labels should map attribute names to {LABELS}, found {row['labels']!r:.80}")
    labels = {
        name: label for name, label in row["labels"].items() if label is not None
    }  # tables fill missing labels with None
    for name, label in labels.items():
        if name not in attributes:
            raise UnknownNameError("attribute", name, attributes)
        if label not in LABELS:
            raise InputError(f"{where}: the label of {name} should be one of {', '.join(LABELS)}, found {label!r}")
    return Pair(messages, first, second, labels)
