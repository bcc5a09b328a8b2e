"""Labelled preference pairs: one prompt, two replies, and for each attribute a label which reply is better."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.files import read_jsonl, require_keys, write_jsonl
from prosocial.core.protocols import Judge, Message

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
    """Read pairs with `prompt` or `messages`, `first`, `second` and `labels`.

    Args:
        source: a JSONL file, or a folder written by `datasets.Dataset.save_to_disk`.
        attributes: names of the attributes that labels may use.

    Raises:
        InputError: a key is missing, both replies are equal, or a label is not one of first, second, tie, missing.
        UnknownNameError: a label's attribute is not in `attributes`.
    """
    return pairs_of(pair_rows(Path(source)), attributes=attributes, where=str(source))


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


def pair_rows(source: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file, or of a folder written by `datasets.Dataset.save_to_disk`.

    Raises:
        InputError: `source` is neither, or has no rows.
    """
    if not source.is_dir():
        return read_jsonl(source)
    from datasets import Dataset, load_from_disk

    try:
        dataset = load_from_disk(str(source))
    except FileNotFoundError as error:
        raise InputError(f"{source} should be a JSONL file or a saved data set: {str(error).splitlines()[0]}") from None
    if not isinstance(dataset, Dataset) or not len(dataset):
        raise InputError(f"{source} should hold one split with rows, found {dataset!r:.80}: save one split of it")
    return [dict(row) for row in dataset]


def replies_of(row: Mapping[str, Any], *, where: str) -> tuple[tuple[Message, ...], str, str]:
    """Return the conversation of a row and its two replies; `where` names the row in errors.

    Raises:
        InputError: a key is missing, or the replies are equal.
    """
    require_keys(row, ("first", "second"), where=where)
    first, second = str(row["first"]), str(row["second"])
    if first == second:
        raise InputError(f"{where} should have two different replies, found {first!r:.60} twice: remove the row")
    return messages_of(row, where=where), first, second


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
    require_keys(row, ("first", "second", "labels"), where=where)
    messages, first, second = replies_of(row, where=where)
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


def messages_of(row: Mapping[str, Any], *, where: str) -> tuple[Message, ...]:
    """Return the conversation of a row: its `prompt` as one user message, else its `messages`.

    Raises:
        InputError: the row has neither, or a message lacks role or content.
    """
    if isinstance(row.get("prompt"), str):
        return ({"role": "user", "content": row["prompt"]},)
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{where} should hold a prompt (text) or messages (a list), found neither: add one")
    for message in messages:
        if not isinstance(message, dict) or {"role", "content"} - set(message):
            raise InputError(f"{where}: a message should have role and content, found {message!r:.80}")
    return tuple({"role": str(message["role"]), "content": str(message["content"])} for message in messages)
