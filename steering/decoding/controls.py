"""The controls of a request, by name, and their conversion into graph inputs (torch-free)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError
from prosocial.core.protocols import Message

from ..configs.authorised import AuthorisedConfig
from ..configs.safety_config import SafetyConfig
from .config import REWARD_SCALE_LIMIT, DecodingConfig

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Steering:
    """The controls of one request; None takes the decoding config's default.

    A safety config sets text, categories, threshold and preference; controls given here override its values.

    Attributes:
        preference: weight by attribute.
        allowed: harm categories to allow.
        harm_threshold: tau in [0, 1].
        reward_scale: s in [0, 100], factor of the shift.
        safety_config: name of a config in `decoding.json`, or an external config returned by `authorise`.
    """

    preference: Mapping[str, float] | None = None
    allowed: Sequence[str] | None = None
    harm_threshold: float | None = None
    reward_scale: float | None = None
    safety_config: str | AuthorisedConfig | None = None

    @property
    def config_name(self) -> str | None:
        """The name of the safety config."""
        return self.safety_config.name if isinstance(self.safety_config, AuthorisedConfig) else self.safety_config


@dataclass(frozen=True)
class ControlArrays:
    """The optional graph inputs of N requests, float32.

    Attributes:
        preference: [N, k], weights of the attributes on the simplex.
        allowed: [N, C], 1 where the harm category is allowed, else 0.
        harm_threshold: [N], tau.
        reward_scale: [N], s.
    """

    preference: Floats
    allowed: Floats
    harm_threshold: Floats
    reward_scale: Floats

    def rows(self, chosen: Sequence[int] | NDArray[np.intp]) -> Self:
        """Return the controls of some requests, in this order."""
        at = np.asarray(chosen, dtype=np.intp)
        return type(self)(self.preference[at], self.allowed[at], self.harm_threshold[at], self.reward_scale[at])

    def as_inputs(self) -> dict[str, Floats]:
        """Return the arrays by graph input name."""
        return {
            "preference": self.preference,
            "allowed": self.allowed,
            "harm_threshold": self.harm_threshold,
            "reward_scale": self.reward_scale,
        }


def control_arrays(config: DecodingConfig, requests: Sequence[Steering]) -> ControlArrays:
    """Resolve the controls of N requests, with defaults filled in, into arrays.

    Raises:
        UnknownNameError: an attribute, harm category or safety config is unknown.
        InputError: a weight, threshold or scale is out of range, or the ceiling does not permit a category.
        RefusedConfig: an external config was signed for other categories.
    """
    resolved = [_resolved(config, request) for request in requests]
    scales = [config.reward_scale if item.reward_scale is None else item.reward_scale for item in resolved]
    for scale in scales:
        if not 0.0 <= scale <= REWARD_SCALE_LIMIT:
            raise InputError(f"reward_scale should be in [0, {REWARD_SCALE_LIMIT:g}], found {scale}")
    return ControlArrays(
        np.array([config.preference_vector(item.preference) for item in resolved], np.float32),
        np.array([config.allowed_mask(item.allowed) for item in resolved], np.float32),
        np.array([config.check_threshold(item.harm_threshold) for item in resolved], np.float32),
        np.array(scales, np.float32),
    )


def in_force(value: np.float32) -> float:
    """Return a control as the graph compares it, by its shortest decimal number.

    Examples:
        >>> in_force(np.float32(0.3)), in_force(np.float32(0.29996))
        (0.3, 0.29996)
    """
    return float(str(value))


def with_safety_text(config: DecodingConfig, request: Steering, messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with the safety config's text in its system message, before any existing text.

    Raises:
        UnknownNameError: the bundle has no config of this name.
        RefusedConfig: an external config is not valid now, or was signed for other categories.
    """
    if isinstance(request.safety_config, AuthorisedConfig):
        request.safety_config.require_time()
    safety_config = _named(config, request)
    return with_system_text(safety_config.system_message if safety_config else "", messages)


def with_system_text(text: str, messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with a text in its system message, before any existing text.

    Examples:
        >>> with_system_text("Be kind.", [{"role": "user", "content": "Hello."}])
        [{'role': 'system', 'content': 'Be kind.'}, {'role': 'user', 'content': 'Hello.'}]
    """
    if not text:
        return list(messages)
    if messages and messages[0].get("role") == "system":
        own = messages[0].get("content", "")
        return [{"role": "system", "content": f"{text}\n\n{own}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def fallback_of(config: DecodingConfig | None, request: Steering) -> str:
    """Return the reply to give when no safe continuation exists, for a request that was already validated."""
    safety_config = _named(config, request) if config else None
    default = config.fallback if config else ""
    return default if safety_config is None or safety_config.fallback is None else safety_config.fallback


def _named(config: DecodingConfig, request: Steering) -> SafetyConfig | None:
    requested = request.safety_config
    if isinstance(requested, AuthorisedConfig):
        requested.require_categories(config.category_registry.digest)
        return requested.config
    return config.safety_config(requested) if requested else None


def one_per_row(steering: Steering | Sequence[Steering] | None, n_rows: int) -> list[Steering]:
    """Return one `Steering` per row from one for all rows, one per row, or None for the defaults.

    Raises:
        InputError: the number of `Steering` objects differs from the number of rows.
    """
    if steering is None or isinstance(steering, Steering):
        return [steering or Steering()] * n_rows
    if len(steering) != n_rows:
        raise InputError(f"there should be one Steering per conversation ({n_rows}), found {len(steering)}")
    return list(steering)


def _resolved(config: DecodingConfig, request: Steering) -> Steering:
    named = _named(config, request)
    if named is None:
        return request
    return Steering(
        preference=named.preference if request.preference is None else request.preference,
        allowed=named.allowed if request.allowed is None else request.allowed,
        harm_threshold=named.threshold if request.harm_threshold is None else request.harm_threshold,
        reward_scale=request.reward_scale,
        safety_config=request.safety_config,
    )
