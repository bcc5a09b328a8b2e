"""Safety configs to score, from a file, a bundle or the rows of a public set (torch-free)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError, UnknownNameError
from prosocial.core.files import read_jsonl
from prosocial.steering.configs import COSA, NamedConfig
from prosocial.steering.configs.category_registry import NEVER_ALLOWED
from prosocial.steering.decoding.config import DecodingConfig


@dataclass(frozen=True)
class ScoredConfig:
    """A safety config that replies are scored under.

    Attributes:
        name: name, unique within a run.
        text: system message; may be empty.
        allowed: harm categories that the config allows; None if only its text says.
        seen: whether the models were trained on configs that allow the same categories; None if not known.
    """

    name: str
    text: str
    allowed: frozenset[str] | None = None
    seen: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        allowed = None if self.allowed is None else sorted(self.allowed)
        return {"name": self.name, "text": self.text, "allowed": allowed, "seen": self.seen}


def read_configs(path: Path, *, categories: Sequence[str] = tuple(COSA.definitions)) -> list[ScoredConfig]:
    """Read configs from JSONL; each row has the fields of a safety config, and optionally `seen`.

    Raises:
        ArtefactError: a row is not a safety config, such as one without text; the message names row and field.
        UnknownNameError: a category is not among `categories`.
        InputError: there is no config, a name occurs twice, "other" is allowed, or `seen` is neither true nor false.
    """
    configs = [_config(row, f"{path} row {number}", categories) for number, row in enumerate(read_jsonl(path), start=1)]
    names = [config.name for config in configs]
    if not names or len(set(names)) != len(names):
        raise InputError(f"{path} should contain one or more configs with unique names, found {names}")
    return configs


def bundle_configs(decoding: DecodingConfig) -> list[ScoredConfig]:
    """Return the configs of a bundle or a steered model."""
    return [
        ScoredConfig(name, config.system_message, frozenset(config.allowed))
        for name, config in decoding.safety_configs.items()
    ]


def own_name(decoding: DecodingConfig, config: ScoredConfig, *, where: str) -> str:
    """Return the name that a bundle has for a config with the same text and allowed categories.

    Raises:
        InputError: the bundle has no such config; a bundle can only be scored under its own configs.
    """
    held = bundle_configs(decoding)
    for own in held:
        if own.text == config.text and config.allowed in (None, own.allowed):
            return own.name
    allowed, names = ", ".join(sorted(config.allowed or ())), ", ".join(own.name for own in held)
    raise InputError(
        f"{where} should have safety config {config.name} with this text and these categories ({allowed or 'none'}), "
        f"found {names or 'none'}: score its own configs (leave the file out), or export it with this one"
    )


def _config(row: dict[str, Any], where: str, categories: Sequence[str]) -> ScoredConfig:
    seen = row.get("seen")
    if seen not in (None, True, False):
        raise InputError(f"{where} should have 'seen' as true or false, found {seen!r:.40}")
    config = NamedConfig.parse({key: value for key, value in row.items() if key != "seen"}, source=where)
    for name in config.allowed:
        if name not in categories:
            raise UnknownNameError("harm category", name, categories)
    if NEVER_ALLOWED in config.allowed:
        raise InputError(f"{where} should not allow {NEVER_ALLOWED!r}, which no config may: leave it out")
    allowed = None if config.is_text_only else frozenset(config.allowed)
    return ScoredConfig(config.name, config.system_message, allowed, seen)
