"""The decoding loop, shared by torch and ONNX Runtime so that both generate the same replies (torch-free).

Conversations with prompts of equal length run in one batch, so that no padding is needed. When the safe set is empty or
a forbidden phrase appears, the loop rolls the reply back, bans the token chosen at that position and continues from
there; once no rollback is left, the configured fallback becomes the reply.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from prosocial.core.chat import ChatTokenizer, require_text
from prosocial.core.cores import is_out_of_memory
from prosocial.core.equal_lengths import equal_length_batches
from prosocial.core.errors import InputError
from prosocial.core.protocols import Message

from .batch_size import rows_with_logits
from .controls import ControlArrays, Steering, control_arrays, fallback_of, one_per_row
from .draft import ReplyDraft
from .engine import PAD, Decision, Engine
from .reply import Reply, error_reply, finished_reply
from .requests import DraftMaker, OnError, ReplyOptions, Request, asked_settings, encode_request
from .sampling import Sampler

T = TypeVar("T")


def generate(
    engine: Engine,
    tokenizer: ChatTokenizer,
    conversations: Sequence[Sequence[Message]],
    *,
    steering: Steering | Sequence[Steering] | None = None,
    prefill: str | Sequence[str] = "",
    row_keys: Sequence[str] | None = None,
    batch_size: int = 32,
    pad: bool = False,
    on_error: OnError = "raise",
    **options: Unpack[ReplyOptions],
) -> list[Reply]:
    """Return one reply per conversation, in order.

    Args:
        engine: the model, in torch or ONNX Runtime.
        tokenizer: tokenizer of the same model.
        conversations: the messages of each conversation.
        steering: controls for all conversations, or one per conversation; None for the decoding config's defaults.
        prefill: text that the reply starts with, for all conversations or one per conversation; not part of the
            returned text.
        row_keys: one text per conversation that seeds its noise; default: its index.
        batch_size: maximum number of conversations per batch, fewer where the vocabulary is large or memory runs out;
            results do not depend on it.
        pad: let prompts of nearly equal length run in one batch; only for engines in torch.
        on_error: "raise" to raise before the model runs, or "reply" to return, for a conversation that cannot be
            answered, a reply that finishes with "error" and holds the message.
        options: see `ReplyOptions`.

    Raises:
        InputError: an argument is out of range, the engine has no rule to steer, a prompt exceeds the context, or one
            conversation does not fit into memory.
        UnknownNameError: an attribute, harm category or safety config is unknown.
    """
    if batch_size < 1 or on_error not in ("raise", "reply"):
        raise InputError(
            f"batch_size should be at least 1 and on_error raise or reply, found {batch_size}, {on_error!r}"
        )
    settings = asked_settings(engine, options)
    requests = _requests(conversations, steering, prefill)
    keys = [str(index) for index in range(len(requests))] if row_keys is None else list(row_keys)
    if len(keys) != len(requests):
        raise InputError(f"there should be one row key per conversation ({len(requests)}), found {len(keys)}")
    for key in keys:
        require_text(key)
    maker = DraftMaker(engine, tokenizer, settings, log_probabilities=options.get("log_probabilities", False))

    def drafted(index: int) -> ReplyDraft:
        prompt = encode_request(engine, tokenizer, requests[index], name=f"conversation {index}")
        return maker.draft(index, prompt)

    drafts = [_or_error(on_error, partial(drafted, index)) for index in range(len(requests))]
    steerings = [
        Steering() if isinstance(row, Reply) else request.steering
        for row, request in zip(drafts, requests, strict=True)
    ]
    controls = control_arrays(engine.config, steerings) if engine.config else None
    loop = Loop(engine, controls, Sampler(settings.sampling, keys), pad=pad)
    loop.run([row for row in drafts if isinstance(row, ReplyDraft)], batch_size)
    finish = partial(finished_reply, config=engine.config, tokenizer=tokenizer)
    fallbacks = [fallback_of(engine.config, steering) for steering in steerings]
    return [
        row if isinstance(row, Reply) else _or_error(on_error, partial(finish, row, fallback=fallback))
        for row, fallback in zip(drafts, fallbacks, strict=True)
    ]


@dataclass(frozen=True)
class Loop:
    """Generates replies with an engine.

    Attributes:
        engine: the model, in torch or ONNX Runtime.
        controls: controls of all conversations, by index; None for an engine without the rule.
        sampler: chooses tokens from logits.
        observer: called before each choice with the conversation's index, the decision and its row there.
        pad: whether rows of different lengths share a batch.
    """

    engine: Engine
    controls: ControlArrays | None
    sampler: Sampler
    observer: Callable[[int, Decision, int], None] | None = None
    pad: bool = False

    def run(self, rows: Sequence[ReplyDraft], batch_size: int) -> None:
        """Generate until every reply has finished; where memory runs out, go on with half as many rows at once.

        Raises:
            InputError: one row does not fit into memory.
        """
        batch_size = min(batch_size, rows_with_logits(self.engine.vocabulary_size))
        while rows := [row for row in rows if row.finish is None]:
            for batch in self._batches(rows, batch_size):
                if not self._fits(batch):
                    batch_size = len(batch) // 2
                    break

    def _fits(self, batch: Sequence[ReplyDraft]) -> bool:
        """Generate until each row of a batch has finished or was rolled back; return False where memory runs out."""
        try:
            for _ in self.steps(batch):
                pass
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise InputError(
                    f"a conversation of {batch[0].length} tokens should fit into memory, it does not: choose a smaller "
                    "dtype or another device, or shorten it"
                ) from error
            return False
        return True

    def _batches(self, rows: Sequence[ReplyDraft], batch_size: int) -> list[list[ReplyDraft]]:
        if self.pad:
            by_length = sorted(rows, key=lambda row: row.length)
            return [by_length[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        batches = equal_length_batches((row.length for row in rows), lambda length: batch_size)
        return [[rows[at] for at in batch] for batch in batches]

    def steps(self, batch: Sequence[ReplyDraft]) -> Iterator[None]:
        """Generate one token per row and step until each row has finished or was rolled back.

        All rows must have the same number of tokens, unless they are padded. The key/value cache is freed with the
        iterator.
        """
        width = max(row.length for row in batch)
        ids = np.array([[PAD] * (width - row.length) + row.prompt + row.tokens for row in batch], dtype=np.int64)
        controls = self.controls.rows([row.index for row in batch]) if self.controls else None
        stream = self.engine.prefill(ids, controls, capacity=max(len(row.prompt) + row.limit for row in batch))
        slots, live = list(batch), np.arange(len(batch))
        while True:
            tokens = np.full(len(slots), slots[0].end_ids[0], dtype=np.int64)
            live = self._decide(stream.decision, slots, live, tokens)
            yield
            if not live.size:
                return
            if 2 * live.size < len(slots):
                stream.keep(live)
                slots, tokens = [slots[at] for at in live], tokens[live]
                live = np.arange(len(slots))
            stream.step(tokens)

    def _decide(
        self, decision: Decision, slots: list[ReplyDraft], live: NDArray[np.intp], tokens: NDArray[np.int64]
    ) -> NDArray[np.intp]:
        """Write the next token of every live row into `tokens`; return the rows that continue."""
        rows = [slots[at] for at in live]
        logits = decision.logits if live.size == len(slots) else decision.logits[live]
        for at, row in zip(live, rows, strict=True):
            row.observe(int(decision.safe_set_size[at]), decision.risk[at])
            if self.observer is not None:
                self.observer(row.index, decision, at)
        bans = [row.banned.get(len(row.tokens), []) for row in rows]
        if any(bans):
            logits = logits.copy()
            for at, ids in enumerate(bans):
                logits[at, ids] = -np.inf
        is_open = (decision.safe_set_size[live] > 0) & np.isfinite(logits.max(-1))
        ready = [row for row, is_ready in zip(rows, is_open, strict=True) if is_ready]
        histories = [row.prompt + row.tokens for row in ready] if self.sampler.reads_history else None
        chosen = self.sampler.choose(
            logits if is_open.all() else logits[is_open], [row.index for row in ready], histories
        )
        tokens[live[is_open]] = chosen
        goes_on = np.zeros(len(rows), dtype=bool)
        for at, (row, slot) in enumerate(zip(rows, live, strict=True)):
            if is_open[at]:
                goes_on[at] = _accept(row, int(tokens[slot]), decision.logits[slot])
            else:
                row.take_back()
        return live[goes_on]


def _accept(row: ReplyDraft, token: int, logits: NDArray[np.float32]) -> bool:
    if row.log_probabilities is not None:
        row.log_probabilities.append(log_probability(logits, token))
    return row.accept(token)


def log_probability(logits: NDArray[np.float32], token: int) -> float:
    """Return a token's log-probability under logits [V], which may be minus infinity for other tokens.

    Examples:
        >>> round(log_probability(np.array([0.0, 0.0, -np.inf], np.float32), 1), 4)
        -0.6931
    """
    highest = float(logits.max())
    return float(logits[token]) - highest - float(np.log(np.exp(logits.astype(np.float64) - highest).sum()))


def _requests(
    conversations: Sequence[Sequence[Message]],
    steering: Steering | Sequence[Steering] | None,
    prefill: str | Sequence[str],
) -> list[Request]:
    starts = [prefill] * len(conversations) if isinstance(prefill, str) else list(prefill)
    if len(starts) != len(conversations):
        raise InputError(f"there should be one prefill per conversation ({len(conversations)}), found {len(starts)}")
    steerings = one_per_row(steering, len(conversations))
    return [Request(*parts) for parts in zip(conversations, steerings, starts, strict=True)]


def _or_error(on_error: OnError, make: Callable[[], T]) -> T | Reply:
    """Return the result of `make`; with "reply", an InputError becomes an error reply."""
    try:
        return make()
    except InputError as error:
        if on_error == "raise":
            raise
        return error_reply(error)
