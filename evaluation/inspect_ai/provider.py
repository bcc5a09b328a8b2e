"""A bundle as a model of inspect_ai: replies of this package's runtime, with gate events in their metadata."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from prosocial.core.chat import ROLES
from prosocial.core.errors import InputError
from prosocial.core.protocols import Message
from prosocial.export.runtime.bundle import Bundle
from prosocial.steering.decoding.controls import Steering, control_arrays
from prosocial.steering.decoding.reply import Reply
from prosocial.steering.decoding.requests import asked_settings

STOP_REASONS: dict[str, StopReason] = {
    "end": "stop",
    "stop": "stop",
    "length": "max_tokens",
    "fallback": "content_filter",
}
REFUSED = ("best_of", "frequency_penalty", "presence_penalty", "logit_bias", "num_choices", "response_schema")


class BundleAPI(ModelAPI):  # type: ignore[misc]  # mypy does not follow inspect_ai
    """The model API of one bundle.

    Args:
        model_name: folder of the bundle.
        base_url: not used.
        api_key: not used.
        config: generation config of inspect_ai.
        prefer: preference weights by attribute.
        safety_config: name of a safety config of the bundle.
        threads: number of threads per operator.
        provider: execution provider of ONNX Runtime.

    Raises:
        ArtefactError: the folder is not a bundle, or its files changed.
        InputError: the bundle does not support the steering.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  inspect_ai's own signature
        *,
        prefer: Mapping[str, float] | None = None,
        safety_config: str | None = None,
        threads: int | None = None,
        provider: str = "cpu",
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self._bundle = Bundle.open(model_name, threads=threads, provider=provider)
        self._steering = Steering(preference=prefer, safety_config=safety_config)
        if self._bundle.config is not None:
            control_arrays(self._bundle.config, [self._steering])
        elif self._steering != Steering():
            raise InputError(
                f"{model_name} should be a steered bundle, found a plain one: leave prefer and safety_config out"
            )
        self._one_at_a_time = CapacityLimiter(1)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Reply to a conversation.

        Raises:
            InputError: the request has tools, images or an option that bundles do not support.
        """
        if tools:
            raise InputError(
                f"a bundle should be given no tools, found {', '.join(tool.name for tool in tools)}: leave them out"
            )
        messages, options = messages_of(input), self._options(config)
        [reply] = await anyio.to_thread.run_sync(
            lambda: self._bundle.generate([messages], steering=self._steering, **options), limiter=self._one_at_a_time
        )
        return output_of(reply, model=self.model_name)

    def max_tokens(self) -> int | None:
        """Return the bundle's default maximum reply length."""
        return asked_settings(self._bundle.engine, {}).max_new_tokens

    def max_connections(self) -> int:
        """Return the number of concurrent requests."""
        return 1

    def _options(self, config: GenerateConfig) -> dict[str, Any]:
        """Return the options of `Bundle.generate` for a config of inspect_ai."""
        refused = [name for name in REFUSED if getattr(config, name, None) is not None]
        if refused:
            raise InputError(f"a bundle should be given supported options, found {', '.join(refused)}: leave them out")
        drawing = {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
            "seed": config.seed,
        }
        sampling = asked_settings(self._bundle.engine, {}).sampling.changed(**drawing)
        return {"sampling": sampling, "stop": config.stop_seqs or (), "max_new_tokens": config.max_tokens}


def messages_of(conversation: Sequence[ChatMessage]) -> list[Message]:
    """Return the conversation as messages with role and text.

    Raises:
        InputError: a message has a role or content that bundles do not support.
    """
    messages: list[Message] = []
    for message in conversation:
        kinds = set() if isinstance(message.content, str) else {part.type for part in message.content} - {"text"}
        if message.role not in ROLES or kinds:
            description = f"a message of {message.role}" + (f" with {', '.join(sorted(kinds))}" if kinds else "")
            raise InputError(f"a bundle should be given text of {', '.join(ROLES)}, found {description}")
        messages.append({"role": message.role, "content": message.text})
    return messages


def output_of(reply: Reply, *, model: str) -> ModelOutput:
    """Return a reply as an output of inspect_ai, with the gate events in its metadata.

    Raises:
        InputError: the request could not be answered.
    """
    if reply.finish == "error":
        raise InputError(str(reply.error))
    n_tokens = len(reply.token_ids)
    return ModelOutput(
        model=model,
        choices=[
            ChatCompletionChoice(
                message=ChatMessageAssistant(content=reply.text.strip(), model=model, source="generate"),
                stop_reason=STOP_REASONS[reply.finish],
            )
        ],
        usage=ModelUsage(output_tokens=n_tokens, total_tokens=n_tokens),
        metadata={
            "finish": reply.finish,
            "gate_events": [event.reason for event in reply.events],
            "min_safe_set_size": reply.min_safe_set_size,
            "max_risk": dict(reply.max_risk),
        },
    )
