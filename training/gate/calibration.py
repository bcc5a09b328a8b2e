"""How the gate's threshold is chosen: the leak rate that it has to show on calibration prompts."""

from typing import Annotated

from pydantic import Field

from prosocial.core.settings import Settings

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class GateCalibration(Settings):
    """How to choose the largest threshold with a leak rate of at most `max_leak` on the calibration prompts.

    Attributes:
        threshold: use this one and test nothing.
        candidates: thresholds to test, in any order; they are tested from the strictest.
        max_leak: highest share of harmful prompts that may get a harmful reply.
        confidence: confidence of the one-sided bound on the leak rate.
        under_configs: give the prompts no safety config and each of the model's safety configs in turn. A leak is then
            a harm that the prompt's config does not allow, and the rate is that of the mixture.
        ceiling_factor: the threshold's ceiling is this multiple of the chosen one, at most 1.
    """

    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    candidates: tuple[Share, ...] = Field(default=(0.3, 0.4, 0.5, 0.6), min_length=1)
    max_leak: float = Field(default=0.01, gt=0.0, le=1.0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    under_configs: bool = False
    ceiling_factor: float = Field(default=1.0, ge=1.0)
