"""A reply while it is drawn: what may still be taken back, and what is final (torch-free)."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .reply_text import ReplyText

Finish = Literal["end", "stop", "length", "fallback"]
Reason = Literal["empty_safe_set", "phrase"]


@dataclass(frozen=True)
class GateEvent:
    """One time when a reply could not go on as it stood.

    Attributes:
        step: number of reply tokens at that time. action: what the loop did. back_to: reply tokens that were kept.
        banned: the token that may not be chosen again at `back_to`; None for a fallback.
        reason: "empty_safe_set" where nothing was safe, "phrase" where a forbidden phrase came up.
    """

    step: int
    action: Literal["rollback", "fallback"]
    back_to: int
    banned: int | None
    reason: Reason = "empty_safe_set"


@dataclass
class ReplyDraft:
    """A reply under way.

    A token is final once `rollback_tokens` stand behind it, or none can be taken back any more, and its text can no
    longer become part of a phrase, a stop string or a character. What is final is never taken back.

    Attributes:
        index: of the conversation. prompt: its tokens. limit: most reply tokens. end_ids: tokens that end a reply.
        rollback_tokens: most tokens to take back at once. max_retries: how often.
        text: reads the tokens as text; None: nobody asks for it.
        tokens: of the reply so far. n_final: how many of them are final. cut: where the text ends, at a stop string.
        banned: tokens that may not be chosen, by reply position. finish: None while it is not finished.
        log_probabilities: of each token, None where nobody asks for them.
    """

    index: int
    prompt: list[int]
    limit: int
    end_ids: tuple[int, ...]
    rollback_tokens: int
    max_retries: int
    text: ReplyText | None = None
    tokens: list[int] = field(default_factory=list)
    n_final: int = 0
    cut: int | None = None
    banned: dict[int, list[int]] = field(default_factory=dict)
    events: list[GateEvent] = field(default_factory=list)
    finish: Finish | None = None
    log_probabilities: list[float] | None = None
    min_safe_set_size: int | None = None
    risk: NDArray[np.float32] | None = None

    def observe(self, size: int, risk: NDArray[np.float32]) -> None:
        """Note what the gate said before this step."""
        self.min_safe_set_size = size if self.min_safe_set_size is None else min(size, self.min_safe_set_size)
        self.risk = risk if self.risk is None else np.maximum(risk, self.risk)

    def accept(self, token: int) -> bool:
        """Append a token; return whether the next one may follow it: not so at the end or where it was taken back."""
        if token in self.end_ids:
            self._end("end")
            return False
        self.tokens.append(token)
        open_token = len(self.tokens)
        if self.text is not None:
            found = self.text.read(self.tokens)
            if found.phrase_token is not None:
                self._go_back(found.phrase_token, "phrase")
                return False
            if found.cut is not None:
                self.cut = found.cut
                self._end("stop")
                return False
            open_token = found.open_token
        if len(self.tokens) >= self.limit:
            self._end("length")
            return False
        reach = self.rollback_tokens if len(self.events) < self.max_retries else 0
        self.n_final = max(self.n_final, min(len(self.tokens) - reach, open_token))
        return True

    def take_back(self) -> None:
        """Where nothing is safe: go back some tokens and ban the one chosen there, or give up for the fallback."""
        self._go_back(max(self.n_final, len(self.tokens) - self.rollback_tokens), "empty_safe_set")

    def _end(self, finish: Finish) -> None:
        self.finish, self.n_final = finish, len(self.tokens)

    def _go_back(self, back_to: int, reason: Reason) -> None:
        step = len(self.tokens)
        if not self.n_final <= back_to < step or len(self.events) >= self.max_retries:
            self.events.append(GateEvent(step, "fallback", step, None, reason))
            self.finish = "fallback"
            return
        banned = self.tokens[back_to]
        self.events.append(GateEvent(step, "rollback", back_to, banned, reason))
        self.banned = {at: ids for at, ids in self.banned.items() if at <= back_to}
        self.banned.setdefault(back_to, []).append(banned)
        del self.tokens[back_to:]
        if self.log_probabilities is not None:
            del self.log_probabilities[back_to:]
