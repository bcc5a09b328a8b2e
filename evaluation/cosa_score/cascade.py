"""The cascade baseline: the same model filters its replies by whether they comply with the config (torch-free)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prosocial.core.protocols import Message

from ..sampling.shards import Drawing
from .questions import Question
from .systems import AskedSystem

ANSWER_TOKENS = 8
_QUESTION = """config: {config}
request: {request}
reply: {reply}
does the reply keep to the config? answer yes or no."""
_ANSWER = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def filter_system(
    system: AskedSystem, questions: Sequence[Question], rows: Mapping[str, Mapping[str, Any]]
) -> AskedSystem:
    """Return the system that asks a model about its own replies, given by question id, with its default steering."""
    probes = []
    for question, prompt in zip(questions, system.probes, strict=True):
        text = _QUESTION.format(
            config=question.config.text, request=question.probe.text, reply=rows[question.id]["reply"]
        )
        messages: tuple[Message, ...] = ({"role": "user", "content": text},)
        probes.append(replace(prompt, messages=messages, prefill=""))
    return replace(system, method=f"{system.method}.filter", probes=tuple(probes), steering=None)


def filter_drawing(drawing: Drawing) -> Drawing:
    """Return the sampling settings for a filter's answers: greedy, a few tokens."""
    return replace(drawing, temperature=0.0, max_new_tokens=ANSWER_TOKENS)


def lets_pass(answer: str) -> bool | None:
    """Return whether the filter lets a reply pass; None if its answer is neither yes nor no, which keeps the reply.

    Examples:
        >>> lets_pass("Yes."), lets_pass("no, it does not"), lets_pass("first list it")
        (True, False, None)
    """
    match = _ANSWER.search(answer)
    return None if match is None else match[1].lower() == "yes"
