"""A reply: while it is drawn, and as it is handed back (torch-free)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.chat import ChatTokenizer
from prosocial.editing.errors import InputError

from .decoding import DecodingConfig

Finish = Literal["end", "length", "fallback"]


@dataclass(frozen=True)
class GateEvent:
    """One time when nothing was safe.

    Attributes:
        step: number of reply tokens at that time. action: what the loop did. back_to: reply tokens that were kept.
        banned: the token that may not be chosen again at `back_to`; None for a fallback.
    """

    step: int
    action: Literal["rollback", "fallback"]
    back_to: int
    banned: int | None


@dataclass(frozen=True)
class Reply:
    """One reply.

    Attributes:
        text: without special tokens; the configured fallback where `finish` is "fallback".
        token_ids: the reply's tokens, the end token left out; empty for a fallback.
        finish: "end" at an end token, "length" at the limit, "fallback" where no safe continuation was found.
        events: every time when nothing was safe, in order.
        min_safe_set_size: smallest safe set met (rolled back steps included); None without a gate.
        max_risk: by category, the highest chance that the edited model's own next token would harm, over all steps.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Finish
    events: tuple[GateEvent, ...] = ()
    min_safe_set_size: int | None = None
    max_risk: Mapping[str, float] = field(default_factory=dict)


@dataclass
class ReplyDraft:
    """A reply under way.

    Attributes:
        index: of the conversation. prompt: its tokens. limit: most reply tokens. tokens: of the reply so far.
        banned: tokens that may not be chosen, by reply position. finish: None while it is not finished.
    """

    index: int
    prompt: list[int]
    limit: int
    tokens: list[int] = field(default_factory=list)
    banned: dict[int, list[int]] = field(default_factory=dict)
    events: list[GateEvent] = field(default_factory=list)
    finish: Finish | None = None
    min_safe_set_size: int | None = None
    risk: NDArray[np.float32] | None = None

    def observe(self, size: int, risk: NDArray[np.float32]) -> None:
        """Note what the gate said before this step."""
        self.min_safe_set_size = size if self.min_safe_set_size is None else min(size, self.min_safe_set_size)
        self.risk = risk if self.risk is None else np.maximum(self.risk, risk)

    def accept(self, token: int, end_ids: tuple[int, ...]) -> None:
        """Append the chosen token, or finish."""
        if token in end_ids:
            self.finish = "end"
            return
        self.tokens.append(token)
        if len(self.tokens) >= self.limit:
            self.finish = "length"

    def take_back(self, n_tokens: int, max_retries: int) -> None:
        """Go back some tokens and ban the one chosen there, or give up for the fallback."""
        step = len(self.tokens)
        back_to = max(0, step - n_tokens)
        if step == 0 or len(self.events) >= max_retries:
            self.events.append(GateEvent(step, "fallback", step, None))
            self.finish = "fallback"
            return
        banned = self.tokens[back_to]
        self.events.append(GateEvent(step, "rollback", back_to, banned))
        self.banned = {at: ids for at, ids in self.banned.items() if at <= back_to}
        self.banned.setdefault(back_to, []).append(banned)
        del self.tokens[back_to:]


def finished_reply(row: ReplyDraft, config: DecodingConfig | None, tokenizer: ChatTokenizer) -> Reply:
    """Return the reply of a finished draft.

    Raises:
        InputError: a model without a gate ran out of finite logits.
    """
    finish = row.finish or "length"
    events = tuple(row.events)
    if config is None:
        if finish == "fallback":
            raise InputError("the model gave no finite logit for a next token: its weights are broken")
        return Reply(tokenizer.decode(row.tokens), tuple(row.tokens), finish, events)
    tokens = () if finish == "fallback" else tuple(row.tokens)
    text = config.fallback if finish == "fallback" else tokenizer.decode(tokens)
    names = config.categories
    risk = {} if row.risk is None else dict(zip(names, map(float, row.risk), strict=True))
    return Reply(text, tokens, finish, events, row.min_safe_set_size, risk)
