"""Parameters of a stage as one frozen, validated value: an unknown key or a wrong type is refused at the border."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of every set of parameters that a recipe can name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
