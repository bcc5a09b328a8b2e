"""Requests and reply options, validated and encoded before the model runs (torch-free)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from prosocial.core.chat import ChatTokenizer, require_messages, require_text
from prosocial.core.errors import InputError, UnknownNameError
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
    """Options of reply generation; a missing or None option takes the decoding config's value.

    Attributes:
        sampling: how the next token is chosen.
        temperature: overrides the temperature of `sampling`.
        seed: overrides the seed of `sampling`.
        max_new_tokens: maximum number of tokens of a reply.
        rollback_tokens: maximum number of tokens to roll back when the safe set is empty; at 0 every token is final.
        max_retries: maximum number of rollbacks per reply.
        stop: stop strings, in addition to the config's.
        log_probabilities: whether replies report the log-probability of each token.
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
        messages: messages of the conversation.
        steering: controls of the rule for this conversation.
        prefill: text that the reply starts with.
    """

    messages: Sequence[Message]
    steering: Steering
    prefill: str = ""


def reply_settings(engine: Engine) -> ReplySettings:
    """Return an engine's default reply settings."""
    if engine.config is None:
        return ReplySettings()
    return ReplySettings(**{name: getattr(engine.config, name) for name in ReplySettings.model_fields})


def asked_settings(engine: Engine, options: ReplyOptions) -> ReplySettings:
    """Return an engine's reply settings, overridden by a caller's options.

    Raises:
        UnknownNameError: there is no such option.
        InputError: a value is out of range.
    """
    for name in sorted(options.keys() - ReplyOptions.__annotations__.keys()):
        raise UnknownNameError("reply option", name, ReplyOptions.__annotations__)
    default = reply_settings(engine)
    sampling = options.get("sampling") or default.sampling
    return default.changed(
        sampling=sampling.changed(temperature=options.get("temperature"), seed=options.get("seed")),
        stop=[*default.stop, *options.get("stop", ())],
        **{name: options.get(name) for name in ("max_new_tokens", "rollback_tokens", "max_retries")},
    )


def encode_request(engine: Engine, tokenizer: ChatTokenizer, request: Request, *, name: str) -> list[int]:
    """Validate a request and return the token ids of its prompt.

    Args:
        engine: the engine that will run the prompt.
        tokenizer: tokenizer of the same model.
        request: the request.
        name: name of the request in errors.

    Raises:
        InputError: a control is invalid or the engine has no rule, a message is invalid or all are empty, a token is
            outside the vocabulary, or the prompt leaves no room for a reply. Messages that are far too many or too long
            are refused before they are encoded.
        UnknownNameError: an attribute, harm category or safety config is unknown.
    """
    require_messages(request.messages)
    _require_room(engine, tokenizer, request, name)
    if engine.config is not None:
        try:
            control_arrays(engine.config, [request.steering])
        except (TypeError, OverflowError) as error:
            raise InputError(f"{name} should have controls that are numbers and names: {error}") from None
        messages = with_safety_text(engine.config, request.steering, request.messages)
    elif request.steering != Steering():
        raise InputError("a model without head and gate cannot be steered: omit preference and safety config")
    else:
        messages = list(request.messages)
    prompt = tokenizer.encode_chat(messages, prefill=request.prefill)
    if not prompt or not (request.prefill or any(message["content"] for message in request.messages)):
        raise InputError(f"{name} should hold some text, found {len(request.messages)} messages without text: add one")
    if max(prompt) >= engine.vocabulary_size:
        raise InputError(
            f"{name} should have token ids below {engine.vocabulary_size}, the model's vocabulary size, found "
            f"{max(prompt)}: the tokenizer belongs to another model, or its added tokens have no embedding"
        )
    if engine.context_length is not None and len(prompt) >= engine.context_length:
        raise InputError(
            f"{name} should have 1 to {engine.context_length - 1} tokens so that a reply fits, found {len(prompt)}: "
            "shorten it"
        )
    return prompt


def _require_room(engine: Engine, tokenizer: ChatTokenizer, request: Request, name: str) -> None:
    """Refuse a request that cannot fit into the context, however its tokens fall."""
    require_text(request.prefill)
    if engine.context_length is None:
        return
    n_characters = len(request.prefill) + sum(len(message["content"]) for message in request.messages)
    longest = engine.context_length * tokenizer.longest_token
    if len(request.messages) >= engine.context_length or n_characters > longest:
        raise InputError(
            f"{name} should have 1 to {engine.context_length - 1} tokens so that a reply fits, found "
            f"{len(request.messages)} messages with {n_characters} characters: shorten it"
        )


class DraftMaker:
    """Creates empty reply drafts that share their settings.

    Args:
        engine: the engine that will generate the replies.
        tokenizer: tokenizer of the same model.
        settings: reply settings of all drafts.
        log_probabilities: whether to record the log-probability of each token.
        reads_text: whether to decode the text at every step even without forbidden phrases and stop strings, as
            streaming needs.
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
        """Return an empty draft for the conversation `index` with this prompt."""
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
