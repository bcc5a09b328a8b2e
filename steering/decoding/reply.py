"""A finished reply (torch-free)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError

from .config import DecodingConfig
from .draft import Finish, GateEvent, ReplyDraft


@dataclass(frozen=True)
class Reply:
    """One reply.

    Attributes:
        text: the text without special tokens, up to a stop string; the configured fallback if `finish` is "fallback".
        token_ids: all generated tokens, including those of a stop string but not the end token; empty for a fallback.
        finish: "end" at an end token, "stop" at a stop string, "length" at the token limit, "fallback" if no safe
            continuation was left, "error" if the request could not be answered.
        events: rollbacks and fallbacks, in order.
        min_safe_set_size: size of the smallest safe set, rolled back steps included; None without a gate.
        max_risk: by harm category, the highest expected risk of the unsteered model's next token over all steps.
        log_probabilities: log-probability of each token under the rule (softmax of the engine's logits, before sampling
            settings and bans); None if not requested.
        error: one line that says what is wrong with the request if `finish` is "error".
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Finish | Literal["error"]
    events: tuple[GateEvent, ...] = ()
    min_safe_set_size: int | None = None
    max_risk: Mapping[str, float] = field(default_factory=dict)
    log_probabilities: tuple[float, ...] | None = None
    error: str | None = None


def error_reply(error: InputError) -> Reply:
    """Return the reply for a request that could not be answered."""
    return Reply("", (), "error", error=" ".join(str(error).split()))


def finished_reply(row: ReplyDraft, config: DecodingConfig | None, tokenizer: ChatTokenizer, *, fallback: str) -> Reply:
    """Return the reply of a finished draft, with the text `fallback` if the draft ended in the fallback.

    Raises:
        InputError: a model without a gate gave no finite logit.
    """
    finish = row.finish or "length"
    events, scores = tuple(row.events), row.log_probabilities
    tokens = () if finish == "fallback" else tuple(row.tokens)
    kept = None if scores is None else tuple(scores[: len(tokens)])
    text = tokenizer.decode(tokens)[: row.cut]
    if config is None:
        if finish == "fallback":
            raise InputError(
                "the model should give a finite logit for a next token, found none: its weights are broken"
            )
        return Reply(text, tokens, finish, events, log_probabilities=kept)
    text = fallback if finish == "fallback" else text
    highest = [] if row.risk is None else row.risk.tolist()  # no numbers without a gate
    risk = dict(zip(config.categories, highest, strict=True)) if highest else {}
    return Reply(text, tokens, finish, events, row.min_safe_set_size, risk, kept)
