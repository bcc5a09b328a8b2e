"""Streaming of a reply: only text that no rollback can take back is shown (torch-free).

A token is shown once it is final. The text therefore lags behind the model by `rollback_tokens` tokens, and by any text
that could be the start of a forbidden phrase or stop string. With `rollback_tokens=0` every token is shown at once, but
an empty safe set then leads to the fallback without a retry.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, Unpack

from prosocial.core.chat import ChatTokenizer
from prosocial.core.protocols import Message

from .controls import Steering, control_arrays, fallback_of
from .draft import GateEvent, ReplyDraft
from .engine import Engine
from .loop import Loop
from .reply import Reply, finished_reply
from .reply_text import INCOMPLETE
from .requests import DraftMaker, ReplyOptions, Request, asked_settings, encode_request
from .sampling import Sampler

FIRST_ROW = "0"  # the key that `generate` gives its first conversation, so that both sample the same reply


@dataclass
class _Shown:
    text: str = ""
    withdrawn: str = ""
    reply: Reply | None = None


class ReplyStream(Iterator[str]):
    """An iterator over the pieces of one reply's text; joined, they are the text that `generate` returns.

    There is one exception. If the reply ends in the fallback after some text was shown, the fallback follows on a new
    line, and `withdrawn` holds the text shown before. Each of its tokens was safe, but it had no safe continuation: a
    client should remove it from the screen if it can.
    """

    def __init__(self, engine: Engine, tokenizer: ChatTokenizer, row: ReplyDraft, loop: Loop, *, fallback: str) -> None:
        self._row, self._shown = row, _Shown()  # the generator does not reference self: no reference cycle
        self._pieces = _pieces(engine, tokenizer, row, loop, self._shown, fallback)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Stop generating and free the key/value cache."""
        self._pieces.close()

    @property
    def reply(self) -> Reply | None:
        """The complete reply once generation has finished; None before."""
        return self._shown.reply

    @property
    def withdrawn(self) -> str:
        """The text that was shown before the fallback; empty for any other reply."""
        return self._shown.withdrawn

    @property
    def events(self) -> tuple[GateEvent, ...]:
        """The rollbacks and fallbacks so far."""
        return tuple(self._row.events)


def stream(
    engine: Engine,
    tokenizer: ChatTokenizer,
    conversation: Sequence[Message],
    *,
    steering: Steering | None = None,
    prefill: str = "",
    row_key: str = FIRST_ROW,
    **options: Unpack[ReplyOptions],
) -> ReplyStream:
    """Stream the reply to one conversation; arguments are those of `generate`.

    Raises:
        InputError: as `generate`; raised by this call, not by the first piece.
    """
    settings = asked_settings(engine, options)
    request = Request(conversation, steering or Steering(), prefill)
    prompt = encode_request(engine, tokenizer, request, name="the conversation")
    scores = options.get("log_probabilities", False)
    row = DraftMaker(engine, tokenizer, settings, log_probabilities=scores, reads_text=True).draft(0, prompt)
    controls = control_arrays(engine.config, [request.steering]) if engine.config else None
    loop = Loop(engine, controls, Sampler(settings.sampling, [row_key]))
    return ReplyStream(engine, tokenizer, row, loop, fallback=fallback_of(engine.config, request.steering))


def _pieces(
    engine: Engine, tokenizer: ChatTokenizer, row: ReplyDraft, loop: Loop, shown: _Shown, fallback: str
) -> Generator[str, None, None]:
    while row.finish is None:
        n_read = row.n_final
        for _ in loop.steps([row]):
            if row.finish is None and row.n_final > n_read:
                n_read = row.n_final
                text = tokenizer.decode(row.tokens[:n_read]).rstrip(INCOMPLETE)
                if len(text) > len(shown.text):
                    piece, shown.text = text[len(shown.text) :], text
                    yield piece
    shown.reply = finished_reply(row, engine.config, tokenizer, fallback=fallback)
    rest = shown.reply.text[len(shown.text) :]
    if row.finish == "fallback" and shown.text:
        shown.withdrawn, rest = shown.text, f"\n{shown.reply.text}"
    if rest:
        yield rest
