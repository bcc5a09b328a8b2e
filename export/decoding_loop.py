"""The host-side decoding loop, one for torch and for ONNX Runtime, so that the two cannot drift apart (torch-free).

Conversations of equal prompt length run together, so that no padding is ever needed. Where the gate leaves nothing
safe, the reply is rolled back a few tokens and drawn again without the token chosen there; if that does not help
either, the configured fallback becomes the reply.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prosocial.editing.chat import ChatTokenizer
from prosocial.editing.errors import InputError
from prosocial.editing.protocols import Message

from .decoding import ReplySettings
from .engine import Decision, Engine
from .reply import Reply, ReplyDraft, finished_reply
from .sampling import Sampler, Sampling
from .steering import ControlArrays, Steering, control_arrays, one_per_row, with_safety_text


def generate(
    engine: Engine,
    tokenizer: ChatTokenizer,
    conversations: Sequence[Sequence[Message]],
    *,
    steering: Steering | Sequence[Steering] | None = None,
    prefill: str | Sequence[str] = "",
    sampling: Sampling | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    row_keys: Sequence[str] | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 32,
    rollback_tokens: int = 8,
    max_retries: int = 2,
) -> list[Reply]:
    """Reply to conversations, in their order.

    Args:
        engine: what decides on tokens. tokenizer: of the same model.
        conversations: messages of each.
        steering: one request for all rows or one each; None: the defaults of the decoding config.
        prefill: text that the reply starts with, one for all rows or one each (not part of the returned text).
        sampling: how a token is chosen (default: the decoding config's, else greedy).
        temperature, seed: these two of `sampling`, without the others.
        row_keys: one text per row that its noise hangs on (default: its index).
        max_new_tokens: most tokens of a reply (default: the decoding config's, else 256).
        batch_size: most rows at once; results do not depend on it.
        rollback_tokens: tokens to take back where nothing is safe. max_retries: how often per reply.

    Raises:
        InputError: an argument out of range, steering for an engine without the rule, or a prompt beyond the context.
    """
    limit = token_limit(engine, max_new_tokens)
    chosen = (sampling or reply_settings(engine).sampling).changed(temperature=temperature, seed=seed)
    if batch_size < 1 or rollback_tokens < 1 or max_retries < 0:
        raise InputError("batch_size and rollback_tokens should be at least 1, max_retries at least 0")
    if not conversations:
        return []
    requests = one_per_row(steering, len(conversations))
    rows = _rows(engine, tokenizer, conversations, requests, prefill, limit)
    keys = [str(index) for index in range(len(rows))] if row_keys is None else list(row_keys)
    if len(keys) != len(rows):
        raise InputError(f"there should be one row key per conversation ({len(rows)}), found {len(keys)}")
    loop = _Loop(
        engine,
        tokenizer.end_ids,
        control_arrays(engine.config, requests) if engine.config else None,
        Sampler(chosen, keys),
        rollback_tokens,
        max_retries,
    )
    pending = rows
    while pending:
        pending = [row for batch in _batches(pending, batch_size) for row in loop.run(batch)]
    return [finished_reply(row, engine.config, tokenizer) for row in rows]


@dataclass(frozen=True)
class _Loop:
    """Runs batches of rows of equal length."""

    engine: Engine
    end_ids: tuple[int, ...]
    controls: ControlArrays | None
    sampler: Sampler
    rollback_tokens: int
    max_retries: int

    def run(self, batch: list[ReplyDraft]) -> list[ReplyDraft]:
        """Run rows until each is finished or rolled back; return those to start again."""
        ids = np.array([row.prompt + row.tokens for row in batch], dtype=np.int64)
        controls = self.controls.rows([row.index for row in batch]) if self.controls else None
        capacity = max(len(row.prompt) + row.limit for row in batch)
        stream = self.engine.prefill(ids, controls, capacity=capacity)
        live = np.arange(len(batch))
        slots = list(batch)
        again: list[ReplyDraft] = []
        while True:
            tokens = np.full(len(slots), self.end_ids[0], dtype=np.int64)
            stuck = self._decide(stream.decision, slots, live, tokens)
            again += [row for row in stuck if row.finish is None]
            left = {row.index for row in stuck}
            live = np.array([at for at in live if slots[at].finish is None and slots[at].index not in left], np.intp)
            if not live.size:
                return again
            if 2 * live.size < len(slots):
                stream.keep(live)
                slots, tokens = [slots[at] for at in live], tokens[live]
                live = np.arange(len(slots))
            stream.step(tokens)

    def _decide(
        self, decision: Decision, slots: list[ReplyDraft], live: NDArray[np.intp], tokens: NDArray[np.int64]
    ) -> list[ReplyDraft]:
        """Choose the next token of every live row into `tokens`; return the rows with nothing to choose from."""
        logits = decision.logits[live]
        for at, slot in enumerate(live):
            row = slots[slot]
            row.observe(int(decision.safe_set_size[slot]), decision.risk[slot])
            logits[at, row.banned.get(len(row.tokens), [])] = -np.inf
        is_open = (decision.safe_set_size[live] > 0) & np.isfinite(logits.max(-1))
        ready = [slots[slot] for slot in live[is_open]]
        histories = [row.prompt + row.tokens for row in ready] if self.sampler.reads_history else None
        chosen = self.sampler.choose(logits[is_open], [row.index for row in ready], histories)
        for slot, token in zip(live[is_open], chosen, strict=True):
            tokens[slot] = token
            slots[slot].accept(int(token), self.end_ids)
        stuck = [slots[slot] for slot in live[~is_open]]
        for row in stuck:
            row.take_back(self.rollback_tokens, self.max_retries)
        return stuck


def reply_settings(engine: Engine) -> ReplySettings:
    """Return how an engine's replies are drawn unless a caller says otherwise."""
    return engine.config or ReplySettings()


def token_limit(engine: Engine, max_new_tokens: int | None) -> int:
    """Return how many tokens a reply may have: what is asked for, else the engine's default.

    Raises:
        InputError: less than 1 is asked for.
    """
    if max_new_tokens is None:
        return reply_settings(engine).max_new_tokens
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens should be at least 1, found {max_new_tokens}")
    return max_new_tokens


def _rows(
    engine: Engine,
    tokenizer: ChatTokenizer,
    conversations: Sequence[Sequence[Message]],
    requests: Sequence[Steering],
    prefill: str | Sequence[str],
    limit: int,
) -> list[ReplyDraft]:
    """Encode every conversation, before the first slow step."""
    starts = [prefill] * len(conversations) if isinstance(prefill, str) else list(prefill)
    if len(starts) != len(conversations):
        raise InputError(f"there should be one prefill per conversation ({len(conversations)}), found {len(starts)}")
    if engine.config is None and any(request != Steering() for request in requests):
        raise InputError("a model without head and gate cannot be steered: leave preference and safety config out")
    rows = []
    for index, (messages, request, start) in enumerate(zip(conversations, requests, starts, strict=True)):
        spoken = with_safety_text(engine.config, request, messages) if engine.config else list(messages)
        prompt = tokenizer.encode_chat(spoken, prefill=start)
        room = limit if engine.context_length is None else min(limit, engine.context_length - len(prompt))
        if not prompt or room < 1:
            raise InputError(
                f"conversation {index} should have 1 to {(engine.context_length or 0) - 1} tokens so that a reply "
                f"fits, found {len(prompt)}: shorten it"
            )
        rows.append(ReplyDraft(index, prompt, room))
    return rows


def _batches(rows: Sequence[ReplyDraft], batch_size: int) -> list[list[ReplyDraft]]:
    by_length: dict[int, list[ReplyDraft]] = defaultdict(list)
    for row in rows:
        by_length[len(row.prompt) + len(row.tokens)].append(row)
    groups = [group for _, group in sorted(by_length.items())]
    return [group[at : at + batch_size] for group in groups for at in range(0, len(group), batch_size)]
