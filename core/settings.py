"""Base classes for validated, frozen sets of parameters: unknown keys and wrong types are errors."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import InputError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every library's generator accepts


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
