"""A reply as it is drawn: text that no rollback can take back any more (torch-free).

A token is shown once it is final, so that the text lags behind the model by `rollback_tokens` tokens, and by what could
be the start of a phrase or stop string. That is the trade: with `rollback_tokens=0` every token is shown at once, and a
step with nothing safe leads to the fallback instead of another try.
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

FIRST_ROW = "0"  # the key of the first conversation of `generate`


@dataclass
class _Shown:
    text: str = ""
    withdrawn: str = ""
    reply: Reply | None = None


class ReplyStream(Iterator[str]):
    """Pieces of the text of one reply; together they are the text that `generate` returns.

    The one exception: where the fallback comes after text was shown, it follows on a line of its own, and `withdrawn`
    holds what was shown before. Each of its tokens was safe, but no safe way led on from it: a client that can should
    take it off the screen.
    """

    def __init__(self, engine: Engine, tokenizer: ChatTokenizer, row: ReplyDraft, loop: Loop, *, fallback: str) -> None:
        self._row, self._shown = row, _Shown()  # the pieces know nothing of self: no reference cycle
        self._pieces = _pieces(engine, tokenizer, row, loop, self._shown, fallback)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Stop drawing and free the key/value cache."""
        self._pieces.close()

    @property
    def reply(self) -> Reply | None:
        """The whole reply, from its last piece on."""
        return self._shown.reply

    @property
    def withdrawn(self) -> str:
        """The text that was shown before a fallback; empty for any other reply."""
        return self._shown.withdrawn

    @property
    def events(self) -> tuple[GateEvent, ...]:
        """Every time so far when nothing was safe or a forbidden phrase came up."""
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
    """Reply to one conversation piece by piece; arguments as for `generate`.

    Raises:
        InputError: as `generate` does, at once and not at the first piece.
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
