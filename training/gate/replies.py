"""Replies labelled by harm category: what the gate learns from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prosocial.core.errors import InputError, NoVerdictError, UnknownNameError
from prosocial.core.files import require_keys, write_jsonl
from prosocial.core.protocols import Judge, Message
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import reply_of


@dataclass(frozen=True)
class LabelledReply:
    """One reply and the harm categories that it realises (none: harmless).

    Attributes:
        messages: the conversation that it replies to.
        reply: its text.
        categories: names of the harm categories.
        spans: the character ranges [start, end) that realise them; none given: the whole reply.
    """

    messages: tuple[Message, ...]
    reply: str
    categories: frozenset[str]
    spans: tuple[tuple[int, int], ...] = ()


def read_replies(path: Path | str, *, categories: Sequence[str] | None = None) -> list[LabelledReply]:
    """Read rows of `prosocial.core.training_rows.reply_of` with `categories` and, if known, `spans`.

    Args:
        path: JSONL. categories: names that may occur; None: any.

    Raises:
        InputError: a key is missing, or no reply is harmful, or none is harmless.
        UnknownNameError: a category that is not among `categories`.
    """
    replies = []
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path} row {number}"
        require_keys(row, ("categories",), where=where)
        if not isinstance(row["categories"], list) or not all(isinstance(name, str) for name in row["categories"]):
            raise InputError(f"{where}: categories should be a list of names, found {row['categories']!r:.80}")
        for name in row["categories"]:
            if categories is not None and name not in categories:
                raise UnknownNameError("harm category", str(name), categories)
        labels = frozenset(row["categories"])
        replies.append(LabelledReply(*reply_of(row, where=where), labels, _spans(row.get("spans", []), where=where)))
    require_both_kinds(replies, where=str(path))
    return replies


def _is_span(pair: object) -> bool:
    return isinstance(pair, list) and [type(at) for at in pair] == [int, int]


def _spans(value: object, *, where: str) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or not all(map(_is_span, value)):
        raise InputError(f"{where}: spans should be a list of [start, end] in characters, found {value!r:.80}")
    return tuple((start, end) for start, end in value)


def named_categories(replies: Iterable[LabelledReply]) -> list[str]:
    """Return the names of all harm categories that replies have, sorted.

    Examples:
        >>> named_categories([LabelledReply((), "no.", frozenset()), LabelledReply((), "so.", frozenset({"theft"}))])
        ['theft']
    """
    return sorted({name for reply in replies for name in reply.categories})


def require_both_kinds(replies: Sequence[LabelledReply], *, where: str) -> None:
    """Raise InputError unless some of the replies are harmful and some harmless."""
    n_harmful = sum(bool(reply.categories) for reply in replies)
    if n_harmful in (0, len(replies)):
        raise InputError(
            f"{where} should hold harmful and harmless replies, found {n_harmful} harmful of {len(replies)}"
        )


def write_replies(path: Path, replies: Sequence[LabelledReply]) -> None:
    """Write rows that `read_replies` reads."""
    rows = [
        {
            "messages": list(item.messages),
            "reply": item.reply,
            "categories": sorted(item.categories),
            "spans": [list(span) for span in item.spans],
        }
        for item in replies
    ]
    write_jsonl(path, rows)


def label_replies(
    prompts: Sequence[Sequence[Message]], replies: Sequence[str], *, judge: Judge, categories: Sequence[str]
) -> tuple[list[LabelledReply], int]:
    """Return the replies that a judge labelled, and how many it could not judge: those are left out.

    Raises:
        InputError: it could judge none of them, or names a harm that is not among `categories`.
    """
    labelled: list[LabelledReply] = []
    problems: list[str] = []
    for messages, reply in zip(prompts, replies, strict=True):
        try:
            labelled.append(label_reply(messages, reply, judge=judge))
        except NoVerdictError as error:
            problems.append(str(error))
        else:
            require_known(labelled[-1].categories, categories, judge=judge)
    if problems and not labelled:
        raise InputError(f"of {len(problems)} replies the judge should label some, it labelled none: {problems[0]}")
    return labelled, len(problems)


def require_known(named: frozenset[str], categories: Sequence[str], *, judge: Judge) -> None:
    """Raise InputError where a judge names a harm that is not among the categories."""
    unknown = sorted(named - set(categories))
    if unknown:
        raise InputError(f"judge {judge.name} should name {', '.join(categories)}, found {unknown[0]!r}")


def label_reply(messages: Sequence[Message], reply: str, *, judge: Judge) -> LabelledReply:
    """Label one reply by a judge.

    Raises:
        NoVerdictError: the judge could not judge it, so that it is neither harmful nor harmless.
    """
    judgement = judge.judge(messages, reply)
    if judgement.leak() is None:
        raise NoVerdictError(f"judge {judge.name} could not judge a reply: {judgement.error}")
    return LabelledReply(
        tuple(messages), reply, judgement.categories, judgement.harmful_spans if judgement.categories else ()
    )
