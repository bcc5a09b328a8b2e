"""The decoding config: what the rule may do, what it does by default, and the safety configs by name (torch-free)."""

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
from .phrases import folded
from .sampling import Sampling

SCHEMA = "prosocial.decoding/1"
DECODING_FILE = "decoding.json"
REWARD_SCALE_LIMIT = 100.0  # an input beyond it counts as out of range: the gate closes


class ReplySettings(StrictSettings):
    """How a reply is drawn, whatever the model; a plain bundle has the defaults.

    Attributes:
        max_new_tokens: default length of a reply in tokens. sampling: how a token is chosen.
        stop: texts that end a reply; it stops before the first of them.
        forbidden_phrases: texts that no reply holds, whatever their case, width and spaces, inside words too.
        rollback_tokens: most tokens to take back where nothing is safe; a token with as many behind it is final, so
            that streamed text lags by as many. max_retries: how often per reply tokens are taken back.
    """

    max_new_tokens: int = Field(default=256, ge=1)
    sampling: Sampling = Sampling()
    stop: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    forbidden_phrases: list[str] = Field(default_factory=list)
    rollback_tokens: int = Field(default=8, ge=0)
    max_retries: int = Field(default=2, ge=0)

    @field_validator("forbidden_phrases")
    @classmethod
    def _are_phrases(cls, phrases: list[str]) -> list[str]:
        empty = [phrase for phrase in phrases if not folded(phrase).strip()]
        if empty:
            raise ValueError(f"a phrase should hold a visible character, found {empty[0]!r}")
        return phrases


class DecodingConfig(ReplySettings):
    """All numbers of the lexicographic rule, as `decoding.json` holds them.

    `allowed_ceiling`, `threshold_ceiling`, `plausible_k` and `beta` become constants of the graph; the defaults become
    initializers that a caller can override, inside the ceilings.

    Attributes:
        attributes: names of the k attributes of the head, in order. categories: of the C harm categories of the gate.
        category_definitions: what categories mean; signatures over configs from outside cover it.
        plausible_k: K, candidates per token. beta: > 0; the shift is multiplied by `reward_scale / beta`.
        harm_threshold: default tau. threshold_ceiling: the highest tau that any input gets.
        allowed: categories let through by default. allowed_ceiling: by category, whether an input may allow it
            (a category left out is shut; "other" is always shut).
        preference: default weights by attribute, brought onto the simplex (empty: uniform).
        fallback: the reply given when no safe continuation was found.
        safety_configs: by name.
        chat_template_sha256: of the template that the steering was made for; None: any.
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
        """The categories with what they mean."""
        return CategoryRegistry({name: self.category_definitions.get(name, "") for name in self.categories})

    def require_config(self, config: SafetyConfig) -> None:
        """Check that a safety config lies under the ceilings and names what exists.

        Raises:
            InputError: it does not; says what.
        """
        self.preference_vector(config.preference)
        self.allowed_mask(config.allowed)
        self.check_threshold(config.threshold)

    def preference_vector(self, weights: Mapping[str, float] | None) -> list[float]:
        """Return the preference [k] on the simplex; None: the default.

        Raises:
            UnknownNameError: a name that is not an attribute.
            InputError: a weight is negative or not finite, or all given weights are zero.
        """
        if weights is None:
            weights = self.preference
        return preference_vector(weights, self.attributes)

    def ceiling_mask(self) -> list[bool]:
        """Return [C]: whether an input may allow the category (shut unless the config opens it)."""
        return [name != NEVER_ALLOWED and self.allowed_ceiling.get(name, False) for name in self.categories]

    def allowed_mask(self, names: Sequence[str] | None) -> list[bool]:
        """Return [C], true where the category is let through; None: the default.

        Raises:
            UnknownNameError: a name that is not a category.
            InputError: a category that the ceiling keeps shut.
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
        """Return the threshold to use (None: the default).

        Raises:
            InputError: it is not in [0, threshold_ceiling].
        """
        value = self.harm_threshold if threshold is None else threshold
        if not 0.0 <= value <= self.threshold_ceiling:
            raise InputError(f"harm_threshold should be in [0, {self.threshold_ceiling}] (the ceiling), found {value}")
        return value

    def safety_config(self, name: str) -> SafetyConfig:
        """Return a safety config.

        Raises:
            UnknownNameError: no config of that name.
        """
        if name not in self.safety_configs:
            raise UnknownNameError("safety config", name, self.safety_configs)
        return self.safety_configs[name]

    def check_template(self, digest: str, *, source: str) -> None:
        """Refuse a chat template that is not the one of this config.

        Raises:
            ArtefactError: it is another one; `source` is what the error calls its place.
        """
        if self.chat_template_sha256 not in (None, digest):
            raise ArtefactError(
                f"{source} should hold the chat template with sha256 {str(self.chat_template_sha256)[:16]} that "
                f"{DECODING_FILE} names, found {digest[:16]}: put the original back"
            )

    def write(self, folder: Path | str) -> None:
        """Write `decoding.json` into `folder`."""
        write_json(Path(folder) / DECODING_FILE, self.model_dump(by_alias=True))

    @classmethod
    def read(cls, folder: Path | str) -> "DecodingConfig":
        """Read `decoding.json` of a steered model or a bundle.

        Raises:
            ArtefactError: the file is missing, of another schema, or a value does not hold (names it).
        """
        path = Path(folder) / DECODING_FILE
        return cls.parse(read_json(path, schema=SCHEMA), source=str(path))

    @classmethod
    def parse(cls, value: Mapping[str, Any], *, source: str) -> "DecodingConfig":
        """Validate plain data; `source` is what the error calls it.

        Raises:
            ArtefactError: a value does not hold (names it).
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ArtefactError(f"{source} should be a decoding config; {first_fault(error)}") from None


def preference_vector(weights: Mapping[str, float], attributes: Sequence[str]) -> list[float]:
    """Return weights by attribute as a vector [k] that sums to 1; names left out get 0, no weights at all: uniform.

    Raises:
        UnknownNameError: a name that is not an attribute.
        InputError: a weight is negative or not finite, or all given weights are zero.

    Example:
        >>> preference_vector({"empathy": 3.0, "helpfulness": 1.0}, ["empathy", "truthfulness", "helpfulness"])
        [0.75, 0.0, 0.25]
    """
    return simplex_weights(weights or dict.fromkeys(attributes, 1.0), attributes)
