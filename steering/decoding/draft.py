"""A reply during generation: which tokens are final and which may be rolled back (torch-free)."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .reply_text import ReplyText

Finish = Literal["end", "stop", "length", "fallback"]
Reason = Literal["empty_safe_set", "phrase"]


@dataclass(frozen=True)
class GateEvent:
    """One rollback or fallback of a reply.

    Attributes:
        step: number of reply tokens before it.
        action: what the loop did.
        back_to: number of reply tokens kept.
        banned: the token that may not be chosen again at position `back_to`; None for a fallback.
        reason: "empty_safe_set" if no token was safe, "phrase" if a forbidden phrase appeared.
    """

    step: int
    action: Literal["rollback", "fallback"]
    back_to: int
    banned: int | None
    reason: Reason = "empty_safe_set"


@dataclass
class ReplyDraft:
    """A reply during generation.

    A token is final once `rollback_tokens` tokens follow it (or no rollback is left) and its text can no longer become
    part of a phrase, a stop string or an incomplete character. A final token is never rolled back.

    Attributes:
        index: index of the conversation.
        prompt: token ids of the prompt.
        limit: maximum number of reply tokens.
        end_ids: tokens that end a reply.
        rollback_tokens: maximum number of tokens per rollback.
        max_retries: maximum number of rollbacks.
        text: searches the decoded tokens; None if there is nothing to search for.
        tokens: reply tokens so far.
        n_final: number of final tokens.
        cut: length of the text before a stop string; None if there is none.
        banned: tokens that may not be chosen, by reply position.
        events: rollbacks and fallbacks so far.
        finish: why the reply ended; None while it is not finished.
        log_probabilities: log-probability of each token; None if not requested.
        min_safe_set_size: size of the smallest safe set so far.
        risk: [C], highest risk so far by harm category.
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

    @property
    def length(self) -> int:
        """Number of tokens of prompt and reply so far."""
        return len(self.prompt) + len(self.tokens)

    def observe(self, size: int, risk: NDArray[np.float32]) -> None:
        """Record the gate's outputs for this step."""
        self.min_safe_set_size = size if self.min_safe_set_size is None else min(size, self.min_safe_set_size)
        self.risk = risk if self.risk is None else np.maximum(risk, self.risk)

    def accept(self, token: int) -> bool:
        """Append a token; return whether the batch can continue, False if the reply ended or was rolled back."""
        if token in self.end_ids:
            self._end("end")
            return False
        self.tokens.append(token)
        open_token = len(self.tokens)
        if self.text is not None:
            finding = self.text.read(self.tokens)
            if finding.phrase_token is not None:
                self._go_back(finding.phrase_token, "phrase")
                return False
            if finding.cut is not None:
                self.cut = finding.cut
                self._end("stop")
                return False
            open_token = finding.open_token
        if len(self.tokens) >= self.limit:
            self._end("length")
            return False
        reach = self.rollback_tokens if len(self.events) < self.max_retries else 0
        self.n_final = max(self.n_final, min(len(self.tokens) - reach, open_token))
        return True

    def take_back(self) -> None:
        """Handle an empty safe set: roll back and ban the token chosen there, or finish with the fallback."""
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
