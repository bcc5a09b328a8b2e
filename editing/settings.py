"""Parameters of a stage as one frozen, validated value: an unknown key or a wrong type is refused at the border."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]


class Settings(BaseModel):
    """Base of every set of parameters that a recipe can name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StrictSettings(Settings):
    """Base of what an artefact's JSON holds: a value of another type is refused, never converted."""

    model_config = ConfigDict(strict=True)
