"""The decoding config: ceilings and defaults of the rule, and the named safety configs (torch-free)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from prosocial.core.errors import ArtefactError, InputError, UnknownNameError
from prosocial.core.files import read_json, write_json
from prosocial.core.preferences import simplex_weights
from prosocial.core.settings import StrictSettings, first_fault

from ..configs.category_registry import NEVER_ALLOWED, CategoryRegistry
from ..configs.safety_config import Name, SafetyConfig, Share
from .phrases import LONGEST_PHRASE, folded, require_searchable
from .sampling import Sampling

SCHEMA = "prosocial.decoding/1"
DECODING_FILE = "decoding.json"
CALIBRATION_FILE = "calibration.json"  # the tests that the threshold is based on
REWARD_SCALE_LIMIT = 100.0  # the graph treats a larger input as out of range and closes the gate


class ReplySettings(StrictSettings):
    """How a reply is generated, for steered and plain models; a plain bundle has the defaults.

    Attributes:
        max_new_tokens: default maximum length of a reply in tokens.
        sampling: how the next token is chosen.
        stop: stop strings, each of at most 2,000 characters; the reply ends before the first one.
        forbidden_phrases: texts that no reply may contain, also inside words; case, character width and white space are
            ignored.
        rollback_tokens: maximum number of tokens to roll back when the safe set is empty. A token followed by this many
            others is final, so that streamed text lags behind by this many tokens.
        max_retries: maximum number of rollbacks per reply.
    """

    max_new_tokens: int = Field(default=256, ge=1)
    sampling: Sampling = Sampling()
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    forbidden_phrases: list[str] = Field(default_factory=list)
    rollback_tokens: int = Field(default=8, ge=0)
    max_retries: int = Field(default=2, ge=0)

    @field_validator("stop")
    @classmethod
    def _are_stops(cls, stops: list[str]) -> list[str]:
        require_searchable(stops, what="stop strings")
        return stops

    @field_validator("forbidden_phrases")
    @classmethod
    def _are_phrases(cls, phrases: list[str]) -> list[str]:
        empty = [phrase for phrase in phrases if len(phrase) <= LONGEST_PHRASE and not folded(phrase).strip()]
        if empty:
            raise ValueError(f"a forbidden phrase should have a visible character, found {empty[0]!r:.80}: remove it")
        require_searchable(phrases, what="forbidden phrases")
        require_searchable([folded(phrase).strip() for phrase in phrases], what="forbidden phrases, normalised,")
        return phrases


class DecodingConfig(ReplySettings):
    """All settings of the lexicographic rule, as stored in `decoding.json`.

    `allowed_ceiling`, `threshold_ceiling`, `plausible_k` and `beta` become constants of the graph. The defaults become
    initializers of graph inputs, which a caller can override within the ceilings.

    Attributes:
        attributes: names of the head's k attributes, in order.
        categories: names of the gate's C harm categories, in order.
        category_definitions: definition by category; signatures of external configs cover it.
        plausible_k: K, number of candidate tokens per step.
        beta: above 0; the shift of the logits is multiplied by `reward_scale / beta`.
        reward_scale: default s in [0, 100].
        harm_threshold: default tau in [0, threshold_ceiling].
        threshold_ceiling: upper limit of tau for every input.
        allowed: harm categories allowed by default.
        allowed_ceiling: by category, whether an input may allow it; a category that is not listed may not be allowed,
            and neither may "other".
        preference: default weight by attribute, scaled to sum to 1; empty for uniform weights.
        fallback: the reply when no safe continuation exists.
        safety_configs: the bundle's safety configs by name.
        chat_template_sha256: SHA-256 of the chat template that head and gate were trained with; None to accept any.
    """

    schema_: Literal["prosocial.decoding/1"] = Field(default="prosocial.decoding/1", alias="schema")
    attributes: list[Name] = Field(min_length=1)
    categories: list[Name] = Field(min_length=1)
    category_definitions: dict[Name, str] = Field(default_factory=dict)
    plausible_k: int = Field(default=128, ge=1)
    beta: float = Field(default=1.0, gt=0.0)
    reward_scale: float = Field(default=1.0, ge=0.0, le=REWARD_SCALE_LIMIT)
    harm_threshold: Share = 0.5
    threshold_ceiling: Share = 0.5
    allowed: list[str] = Field(default_factory=list)
    allowed_ceiling: dict[str, bool] = Field(default_factory=dict)
    preference: dict[str, float] = Field(default_factory=dict)
    fallback: str = "I cannot help with that."
    safety_configs: dict[Name, SafetyConfig] = Field(default_factory=dict)

    chat_template_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for kind, names in (("attributes", self.attributes), ("categories", self.categories)):
            if len(set(names)) != len(names):
                raise ValueError(f"{kind} should be distinct, found {names}")
        for kind, named in (
            ("allowed_ceiling", self.allowed_ceiling),
            ("category_definitions", self.category_definitions),
        ):
            unknown = sorted(set(named) - set(self.categories))
            if unknown:
                raise ValueError(f"{kind} should name categories of {self.categories}, found {unknown}")
        if self.allowed_ceiling.get(NEVER_ALLOWED):
            raise ValueError(f"allowed_ceiling should leave {NEVER_ALLOWED!r} closed: it is never allowed")
        self.preference_vector(self.preference)
        self.allowed_mask(self.allowed)
        self.check_threshold(self.harm_threshold)
        for config in self.safety_configs.values():
            self.require_config(config)
        return self

    @property
    def category_registry(self) -> CategoryRegistry:
        """The categories with their definitions."""
        return CategoryRegistry({name: self.category_definitions.get(name, "") for name in self.categories})

    def require_config(self, config: SafetyConfig) -> None:
        """Check that a safety config stays within the ceilings and names known attributes and categories.

        Raises:
            UnknownNameError: an attribute or category is unknown.
            InputError: a weight or the threshold is out of range, or the ceiling does not permit a category.
        """
        self.preference_vector(config.preference)
        self.allowed_mask(config.allowed)
        self.check_threshold(config.threshold)

    def preference_vector(self, weights: Mapping[str, float] | None) -> list[float]:
        """Return the preference [k] on the simplex; None for the default.

        Raises:
            UnknownNameError: a name is not an attribute.
            InputError: a weight is negative or not finite, or all given weights are zero.
        """
        if weights is None:
            weights = self.preference
        return preference_vector(weights, self.attributes)

    def ceiling_mask(self) -> list[bool]:
        """Return, for each of the C categories, whether an input may allow it."""
        return [name != NEVER_ALLOWED and self.allowed_ceiling.get(name, False) for name in self.categories]

    def allowed_mask(self, names: Sequence[str] | None) -> list[bool]:
        """Return, for each of the C categories, whether `names` allows it; None for the default.

        Raises:
            UnknownNameError: a name is not a category.
            InputError: the ceiling does not permit a category.
        """
        chosen = set(self.allowed if names is None else names)
        for name in sorted(chosen - set(self.categories)):
            raise UnknownNameError("harm category", name, self.categories)
        open_ = dict(zip(self.categories, self.ceiling_mask(), strict=True))
        shut = sorted(name for name in chosen if not open_[name])
        if shut:
            raise InputError(
                f"allowed categories should lie under the ceiling, which keeps {', '.join(shut)} shut: "
                f"choose among {', '.join(name for name in self.categories if open_[name]) or 'none'}"
            )
        return [name in chosen for name in self.categories]

    def check_threshold(self, threshold: float | None) -> float:
        """Return the given threshold, or the default for None.

        Raises:
            InputError: it is outside [0, threshold_ceiling].
        """
        value = self.harm_threshold if threshold is None else threshold
        if not 0.0 <= value <= self.threshold_ceiling:
            raise InputError(f"harm_threshold should be in [0, {self.threshold_ceiling}] (the ceiling), found {value}")
        return value

    def safety_config(self, name: str) -> SafetyConfig:
        """Return the safety config of this name.

        Raises:
            UnknownNameError: there is no such config.
        """
        if name not in self.safety_configs:
            raise UnknownNameError("safety config", name, self.safety_configs)
        return self.safety_configs[name]

    def check_template(self, digest: str, *, source: str) -> None:
        """Check that a chat template is the one of this config.

        Args:
            digest: SHA-256 (hex) of the template.
            source: where the template is, for the error.

        Raises:
            ArtefactError: it is another template.
        """
        if self.chat_template_sha256 not in (None, digest):
            raise ArtefactError(
                f"{source} should hold the chat template with sha256 {str(self.chat_template_sha256)[:16]} that "
                f"{DECODING_FILE} names, found {digest[:16]}: restore the original"
            )

    def write(self, folder: Path | str) -> None:
        """Write `decoding.json` into `folder`."""
        write_json(Path(folder) / DECODING_FILE, self.model_dump(by_alias=True))

    @classmethod
    def read(cls, folder: Path | str) -> "DecodingConfig":
        """Read `decoding.json` from the folder of a steered model or bundle.

        Raises:
            ArtefactError: the file is missing, its schema differs, or a value is invalid (the message names it).
        """
        path = Path(folder) / DECODING_FILE
        return cls.parse(read_json(path, schema=SCHEMA), source=str(path))

    @classmethod
    def parse(cls, value: Mapping[str, Any], *, source: str) -> "DecodingConfig":
        """Validate plain data; `source` names it in errors.

        Raises:
            ArtefactError: a value is invalid (the message names it).
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ArtefactError(f"{source} should be a decoding config; {first_fault(error)}") from None


def preference_vector(weights: Mapping[str, float], attributes: Sequence[str]) -> list[float]:
    """Return weights by attribute as a vector [k] that sums to 1; a missing attribute gets 0, no weights give uniform.

    Raises:
        UnknownNameError: a name is not an attribute.
        InputError: a weight is negative or not finite, or all given weights are zero.

    Examples:
        >>> preference_vector({"empathy": 3.0, "helpfulness": 1.0}, ["empathy", "truthfulness", "helpfulness"])
        [0.75, 0.0, 0.25]
    """
    return simplex_weights(weights or dict.fromkeys(attributes, 1.0), attributes)
