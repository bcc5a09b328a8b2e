"""Settings from the command line: `--set KEY=VALUE`, as a recipe's overrides."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from prosocial.core.errors import InputError

from .loading import describe
from .overrides import apply_overrides

Model = TypeVar("Model", bound=BaseModel)


def read_settings(model: type[Model], overrides: Sequence[str] = (), *, given: dict[str, Any] | None = None) -> Model:
    """Return settings, changed by overrides such as `adapter.rank=8`.

    Args:
        model: the class of the settings. overrides: applied in order; values are YAML.
        given: values to start from, such as those of a file; None: all defaults.

    Raises:
        InputError: a setting that does not exist, or a value that does not hold.

    Examples:
        >>> from prosocial.training.gate.calibration import GateCalibration
        >>> read_settings(GateCalibration, ["max_leak=0.05"]).max_leak
        0.05
    """
    changed = apply_overrides(given or {}, overrides)
    try:
        return model.model_validate(changed)
    except ValidationError as error:
        raise InputError(describe(error, recipe=changed, model=model)) from None
