"""The `decoding` part of a recipe as a file of its own, for `prosocial assemble`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prosocial.core.errors import InputError
from prosocial.core.yaml_values import read_yaml

from ..reading.settings import read_settings
from .schema import DecodingSettings

if TYPE_CHECKING:
    from prosocial.steering.head import CompactHead


def read_decoding(path: Path | None, *, head: "CompactHead") -> DecodingSettings:
    """Read decoding settings from YAML or JSON; `beta` and `plausible_k` are those of the head's training by default.

    Args:
        path: the file; None: nothing but the defaults. head: loaded from its folder.

    Raises:
        InputError: there is no such file, it is not a mapping, or a key or a value does not hold.
    """
    given: Any = {}
    if path is not None:
        if not path.is_file():
            raise InputError(f"expected decoding settings at {path}: there is no such file")
        given = read_yaml(path.read_text(encoding="utf-8"), where=str(path))
    if not isinstance(given, dict):
        raise InputError(f"{path} should map keys of a recipe's `decoding` to values, found {type(given).__name__}")
    return read_settings(DecodingSettings, given=_of_training(head) | given)


def _of_training(head: "CompactHead") -> dict[str, Any]:
    """Return the settings that the head was distilled for; none for a head that does not say."""
    training = head.extra.get("training")
    return {"plausible_k": training["plausible_k"], "beta": 1 / training["inverse_beta"]} if training else {}
