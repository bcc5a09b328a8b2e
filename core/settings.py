"""Base classes for validated, frozen sets of parameters: unknown keys and wrong types are errors."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import InputError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
LEAST_TEMPERATURE = 1e-3


def usable_temperature(value: float) -> float:
    """Return a sampling temperature that is 0 or large enough to divide by.

    Raises:
        ValueError: it lies between.
    """
    if 0.0 < value < LEAST_TEMPERATURE:
        raise ValueError(f"should be 0 or at least {LEAST_TEMPERATURE}")
    return value


def usable_pattern(text: str) -> str:
    """Return a text that is a regular expression.

    Raises:
        ValueError: Python cannot compile it.
    """
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"should be a regular expression: {error}, found {text!r:.80}") from None
    return text


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # numpy takes no higher one
Temperature = Annotated[NonNegative, AfterValidator(usable_temperature)]
Pattern = Annotated[str, AfterValidator(usable_pattern)]


class Settings(BaseModel):
    """Base class of the parameter sets in recipes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")  # not before the conversion: that of dates in strict JSON would fail
    @classmethod
    def _has_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"a whole number should have 64 bits, found one of {value.bit_length()} bits")
        return value


class StrictSettings(Settings):
    """Base class of the JSON content of artefacts: a value of the wrong type is an error and is never converted."""

    model_config = ConfigDict(strict=True)

    def changed(self, **changes: Any) -> Self:
        """Return a copy with some values replaced; a value of None leaves the field as it is.

        Raises:
            InputError: a value is invalid (the message names its field).
        """
        given = {name: value for name, value in changes.items() if value is not None}
        try:
            return type(self).model_validate(self.model_dump() | given)
        except ValidationError as error:
            raise InputError(f"{first_fault(error)}, found {error.errors()[0]['input']!r:.80}") from None


def first_fault(error: ValidationError) -> str:
    """Return the first invalid value of a validation error and the reason, as `path.of.field: reason`.

    >>> class Scale(StrictSettings):
    ...     scale: Positive
    >>> try:
    ...     Scale(scale=-1.0)
    ... except ValidationError as error:
    ...     first_fault(error)
    'scale: Input should be greater than 0'
    """
    first = error.errors()[0]
    where = ".".join(f"{' '.join(str(part).split()):.80}" for part in first["loc"]) or "as a whole"
    return f"{where}: {first['msg']}"
