"""Parameters of a stage as one frozen, validated value: an unknown key or a wrong type is refused at the border."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import InputError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]


class Settings(BaseModel):
    """Base of every set of parameters that a recipe can name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StrictSettings(Settings):
    """Base of what an artefact's JSON holds: a value of another type is refused, never converted."""

    model_config = ConfigDict(strict=True)

    def changed(self, **changes: Any) -> Self:
        """Return a copy with some values replaced; None keeps what is there.

        Raises:
            InputError: a value that does not hold (names it).
        """
        given = {name: value for name, value in changes.items() if value is not None}
        try:
            return type(self).model_validate(self.model_dump() | given)
        except ValidationError as error:
            raise InputError(f"{first_fault(error)}, found {error.errors()[0]['input']!r}") from None


def first_fault(error: ValidationError) -> str:
    """Return the first value that does not hold and why, as `place.in.it: reason`.

    >>> class Scale(StrictSettings):
    ...     scale: Positive
    >>> try:
    ...     Scale(scale=-1.0)
    ... except ValidationError as error:
    ...     first_fault(error)
    'scale: Input should be greater than 0'
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "as a whole"
    return f"{where}: {first['msg']}"
