"""How a model draws replies that something is trained on."""

from pydantic import Field

from prosocial.core.settings import Count, Settings, Temperature


class ReplySampling(Settings):
    """How replies for training are drawn.

    Attributes:
        temperature: above 0, so that replies to the same prompt differ.
        max_new_tokens: most tokens of a reply.
    """

    temperature: Temperature = Field(default=1.0, gt=0.0)
    max_new_tokens: Count = 64


DEFAULT_SAMPLING = ReplySampling()
