"""Samples candidate replies to the prompts from one or more models, with or without safety configs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.placement import Placement
from prosocial.core.row_files import read_rows
from prosocial.core.settings import Count, Settings, Temperature
from prosocial.core.training_rows import reply_of

from ..labelling.rows import label_rows
from .configs import under_config
from .contamination import normalised
from .prompts import request_text
from .rows import Row

CHUNK = 1024  # replies per checkpoint: a killed run loses at most this many


class CandidateSource(Settings):
    """A model that candidate replies are sampled from.

    Attributes:
        model: `base`, a folder, or a Hub id.
        under_configs: sample one reply under every config drawn for replies; if False, sample `count` replies to each
            prompt without a config.
        count: number of replies to each prompt without a config.
        system_prompt: system message of replies without a config; empty for none.
        temperature: sampling temperature; 0 is greedy.
        max_new_tokens: maximum number of tokens of a reply.
    """

    model: str = "base"
    under_configs: bool = True
    count: Count = 1
    system_prompt: str = ""
    temperature: Temperature = 1.0
    max_new_tokens: Count = 1024


def candidate_requests(source: CandidateSource, prompts: Sequence[Row], configs: Sequence[Row]) -> list[Row]:
    """Return the requests to a source: rows of `prompt` (its id) and `messages`."""
    by_id = {row["id"]: row for row in prompts}
    if not source.under_configs:
        return [
            {"prompt": row["id"], "messages": under_config(row, source.system_prompt)}
            for row in prompts
            for _ in range(source.count)
        ]
    return [
        {"prompt": row["prompt"], "messages": under_config(by_id[row["prompt"]], row["system"])}
        for row in configs
        if row["purpose"] == "reply"
    ]


def given_candidates(path: Path | None, prompts: Sequence[Row]) -> tuple[list[Row], dict[str, int]]:
    """Return the replies in a file that answer training prompts, and counts of those and of the other replies.

    Raises:
        InputError: a row has no reply, or no conversation.
    """
    if path is None:
        return [], {}
    by_text = {normalised(request_text(row)): row["id"] for row in prompts}
    rows: list[Row] = []
    given = read_rows(path)
    for number, row in enumerate(given, start=1):
        messages, reply = reply_of(row, where=f"{path} row {number}")
        text = normalised(request_text({"messages": messages}))
        if text in by_text:
            rows.append({"prompt": by_text[text], "reply": reply, "source": "given"})
    return rows, {"given": len(rows), "given_to_other_prompts": len(given) - len(rows)}


def sample_candidates(
    checkpoint: Path,
    requests: Sequence[Row],
    source: CandidateSource,
    *,
    placement: Placement,
    seed: int,
    out: Path,
    on_replies: Callable[[int], None] = lambda count: None,
) -> list[Row]:
    """Return the requests with a sampled `reply` each; a killed run resumes after the last complete chunk in `out`.

    `on_replies` gets the number of replies sampled since its last call, including those of an earlier run.
    """
    from prosocial.core.chat import ChatTokenizer
    from prosocial.steering.decoding.batch_size import MOST_REPLIES
    from prosocial.steering.decoding.loop import generate
    from prosocial.steering.torch_engine import PlainEngine

    from ..steering.models import open_model

    tokenizer = ChatTokenizer(checkpoint)
    opened: list[Any] = []

    def reply_to(chunk: Row) -> Row:
        if not opened:
            opened.append(PlainEngine(open_model(checkpoint, placement)))
        replies = generate(
            opened[0],
            tokenizer,
            [row["messages"] for row in chunk["rows"]],
            temperature=source.temperature,
            max_new_tokens=source.max_new_tokens,
            seed=seed,
            row_keys=[str(chunk["start"] + number) for number in range(len(chunk["rows"]))],
            batch_size=MOST_REPLIES,
        )
        return {
            "rows": [row | {"reply": reply.text} for row, reply in zip(chunk["rows"], replies, strict=True)],
        }

    chunks: list[Row] = [
        {"start": start, "rows": list(requests[start : start + CHUNK])} for start in range(0, len(requests), CHUNK)
    ]
    sizes = iter([len(chunk["rows"]) for chunk in chunks])
    made_with = source.model_dump(mode="json")
    done = label_rows(chunks, reply_to, out=out, made_with=made_with, on_row=lambda: on_replies(next(sizes)))
    return [row for chunk in done for row in chunk["rows"]]
