"""What a caller asks for, checked and encoded before the first slow step (torch-free)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.core.protocols import Message

from .config import ReplySettings
from .controls import Steering, control_arrays, with_safety_text
from .draft import ReplyDraft
from .engine import Engine
from .phrases import PhraseFinder, folded
from .reply_text import ReplyText
from .sampling import Sampling

OnError = Literal["raise", "reply"]


class ReplyOptions(TypedDict, total=False):
    """How replies are drawn; what is left out is as the decoding config has it.

    Attributes:
        sampling: how a token is chosen. temperature, seed: these two of `sampling`, without the others.
        max_new_tokens: most tokens of a reply.
        rollback_tokens: most tokens to take back where nothing is safe; 0: every token is final at once.
        max_retries: how often per reply tokens are taken back.
        stop: texts that end a reply, beside those of the config.
        log_probabilities: whether to report that of each token.
    """

    sampling: Sampling | None
    temperature: float | None
    seed: int | None
    max_new_tokens: int | None
    rollback_tokens: int | None
    max_retries: int | None
    stop: Sequence[str]
    log_probabilities: bool


@dataclass(frozen=True)
class Request:
    """One conversation to reply to.

    Attributes:
        messages: of the conversation. steering: what is asked of the rule. prefill: text that the reply starts with.
    """

    messages: Sequence[Message]
    steering: Steering
    prefill: str = ""


def reply_settings(engine: Engine) -> ReplySettings:
    """Return how an engine's replies are drawn unless a caller says otherwise."""
    if engine.config is None:
        return ReplySettings()
    return ReplySettings(**{name: getattr(engine.config, name) for name in ReplySettings.model_fields})


def asked_settings(engine: Engine, options: ReplyOptions) -> ReplySettings:
    """Return how replies are drawn with what a caller says.

    Raises:
        InputError: a value out of range.
    """
    default = reply_settings(engine)
    sampling = options.get("sampling") or default.sampling
    return default.changed(
        sampling=sampling.changed(temperature=options.get("temperature"), seed=options.get("seed")),
        stop=[*default.stop, *options.get("stop", ())],
        **{name: options.get(name) for name in ("max_new_tokens", "rollback_tokens", "max_retries")},
    )


def encode_request(engine: Engine, tokenizer: ChatTokenizer, request: Request, *, name: str) -> list[int]:
    """Return the tokens of a request's prompt.

    Args:
        name: what an error calls the request.

    Raises:
        InputError: steering that the engine cannot follow, a message that is none, a token that the model does not
            know, or no room for a reply.
    """
    if engine.config is not None:
        control_arrays(engine.config, [request.steering])
        messages = with_safety_text(engine.config, request.steering, request.messages)
    elif request.steering != Steering():
        raise InputError("a model without head and gate cannot be steered: leave preference and safety config out")
    else:
        messages = list(request.messages)
    prompt = tokenizer.encode_chat(messages, prefill=request.prefill)
    if not prompt or not (request.prefill or any(message["content"] for message in request.messages)):
        raise InputError(f"{name} should say something, found {len(request.messages)} messages without text")
    if max(prompt) >= engine.vocabulary_size:
        raise InputError(
            f"{name} should have tokens below {engine.vocabulary_size}, the size of the model's vocabulary, found "
            f"{max(prompt)}: the tokenizer is of another model, or its added tokens have no embedding"
        )
    if engine.context_length is not None and len(prompt) >= engine.context_length:
        raise InputError(
            f"{name} should have 1 to {engine.context_length - 1} tokens so that a reply fits, found {len(prompt)}: "
            "shorten it"
        )
    return prompt


class DraftMaker:
    """Makes the empty drafts of replies that share their settings.

    Args:
        reads_text: the text is asked for while it is drawn, even where no phrase or stop string has to be found.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: ChatTokenizer,
        settings: ReplySettings,
        *,
        log_probabilities: bool = False,
        reads_text: bool = False,
    ) -> None:
        self._context_length, self._tokenizer, self._settings = engine.context_length, tokenizer, settings
        self._log_probabilities = log_probabilities
        self._phrases = PhraseFinder([folded(phrase).strip() for phrase in settings.forbidden_phrases])
        self._stops = PhraseFinder(settings.stop)
        self._reads_text = reads_text or bool(settings.stop or settings.forbidden_phrases)

    def draft(self, index: int, prompt: list[int]) -> ReplyDraft:
        """Return an empty draft."""
        limit, context_length = self._settings.max_new_tokens, self._context_length
        return ReplyDraft(
            index,
            prompt,
            limit if context_length is None else min(limit, context_length - len(prompt)),
            self._tokenizer.end_ids,
            self._settings.rollback_tokens,
            self._settings.max_retries,
            text=ReplyText(self._tokenizer, self._phrases, self._stops) if self._reads_text else None,
            log_probabilities=[] if self._log_probabilities else None,
        )
