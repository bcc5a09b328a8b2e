"""Reading and validating the configuration of a LoRA adapter (torch-free)."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json
from prosocial.core.patterns import bounded_pattern

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
# Key in the metadata of the weights file: the adapter subtracts a harm vector, so it cannot serve as a harmful parent.
SUBTRACTS_KEY = "prosocial.subtracts_harm"
# Initialisations that do not change the base weights; pissa, olora, corda, loftq, lora_ga and mica can change them.
PLAIN_INITS = (True, False, None, "gaussian", "orthogonal", "eva")
# Fields of LoraConfig in peft 0.21 that do not affect how the weights are merged, or that are read below.
KNOWN_FIELDS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out",
    "bias", "use_rslora", "modules_to_save", "init_lora_weights", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "megatron_config", "megatron_core", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "use_dora", "runtime_config", "qalora_group_size", "ensure_weight_tying",
    "trainable_token_indices", "target_parameters",
}  # fmt: skip


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of an adapter that determine how it is merged (peft 0.21, `LoraConfig`).

    Attributes:
        rank: rank r of modules that no `rank_pattern` matches.
        alpha: lora_alpha of modules that no `alpha_pattern` matches.
        rank_pattern: rank by regular expression on the end of a module's name; the first match applies.
        alpha_pattern: lora_alpha by regular expression, likewise.
        rank_stabilised: the scale is alpha / sqrt(r) instead of alpha / r.
        fan_in_fan_out: linear weights are stored as [in, out] (GPT-2).
        dora: the adapter uses DoRA (magnitude and direction).
        tokens: rows of an embedding that were trained directly, by the end of the embedding's name; the name is empty
            if the adapter does not name it (the input embedding).
        parameters: names, or ends of names, of bare parameters that have factors (fused experts).
    """

    rank: int
    alpha: float
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    rank_stabilised: bool
    fan_in_fan_out: bool
    dora: bool
    tokens: dict[str, tuple[int, ...]]
    parameters: tuple[str, ...]

    def expected_rank(self, module: str) -> int:
        """Return the rank of a module's factors."""
        return self.rank_pattern.get(_first_match(self.rank_pattern, module), self.rank)

    def scale(self, module: str) -> float:
        """Return the scale of a module's product B @ A."""
        rank = self.expected_rank(module)
        alpha = self.alpha_pattern.get(_first_match(self.alpha_pattern, module), self.alpha)
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank

    def token_rows(self, module: str) -> tuple[int, ...]:
        """Return the rows of an embedding that the adapter replaces; an empty tuple for any other module."""
        return next((rows for end, rows in self.tokens.items() if f".{module}".endswith(f".{end}" if end else "")), ())


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read `adapter_config.json`.

    Raises:
        ArtefactError: the file is missing, or the adapter is not a LoRA or is an unsupported variant (the message names
            it).
    """
    value = read_json(folder / CONFIG_NAME)
    kind = value.get("peft_type")
    if kind != "LORA":
        raise ArtefactError(
            f"{folder} should hold a LoRA adapter, found peft_type {kind!r}; merge it and give the merged checkpoint"
        )
    _refuse_variants(value, folder)
    rank_pattern, alpha_pattern = value.get("rank_pattern") or {}, value.get("alpha_pattern") or {}
    try:
        for pattern in (*rank_pattern, *alpha_pattern):
            bounded_pattern(_at_the_end(pattern), what=f"a pattern of {CONFIG_NAME}")
        return AdapterConfig(
            rank=_positive(value["r"]),
            alpha=_finite(value["lora_alpha"]),
            rank_pattern={pattern: _positive(rank) for pattern, rank in rank_pattern.items()},
            alpha_pattern={pattern: _finite(alpha) for pattern, alpha in alpha_pattern.items()},
            rank_stabilised=bool(value.get("use_rslora")),
            fan_in_fan_out=bool(value.get("fan_in_fan_out")),
            dora=bool(value.get("use_dora")),
            tokens=_tokens(value.get("trainable_token_indices") or {}),
            parameters=_names(value.get("target_parameters") or []),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, re.error) as error:
        raise ArtefactError(
            f"{folder / CONFIG_NAME} should hold ranks and alphas as numbers, tokens as indices, parameters as "
            f"names: {error!r}; save the adapter again with peft"
        ) from None


def _positive(rank: object) -> int:
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"a rank should be an integer of at least 1, found {rank!r}")
    return rank


def _tokens(value: object) -> dict[str, tuple[int, ...]]:
    """Return token indices by module from either form that peft supports: a list, or lists by module."""
    by_module: dict[str, Any] = value if isinstance(value, dict) else {"": value}
    for rows in by_module.values():
        sound = isinstance(rows, list) and all(type(row) is int and row >= 0 for row in rows)
        if not sound or len(set(rows)) != len(rows):
            raise ValueError(f"token indices should be distinct integers of at least 0, found {rows!r:.80}")
    return {module: tuple(rows) for module, rows in by_module.items()}


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValueError(f"target_parameters should be a list of names, found {value!r:.80}")
    return tuple(value)


def _finite(alpha: object) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ValueError(f"an alpha should be a finite number, found {alpha!r}")
    return float(alpha)


def _refuse_variants(value: dict[str, Any], folder: Path) -> None:
    init = value.get("init_lora_weights", True)
    if init not in PLAIN_INITS:
        raise ArtefactError(
            f"{folder} should be a plain LoRA, found init_lora_weights {init!r}, which changes the base: save it with "
            "path_initial_model_for_weight_conversion, or merge it and give the merged checkpoint"
        )
    for key, setting in value.items():
        if setting and key not in KNOWN_FIELDS:
            raise ArtefactError(
                f"{folder} should be a plain LoRA, found {key}={setting!r:.60}, which is not supported: "
                "merge it and give the merged checkpoint"
            )


def _first_match(patterns: dict[str, Any], module: str) -> str:
    """Return the first pattern that matches whole parts at the end of a module's name; the name itself if none does."""
    return next((key for key in patterns if re.match(_at_the_end(key), module)), module)


def _at_the_end(pattern: str) -> str:
    """Return a pattern that matches whole parts at the end of a module's name, as peft does."""
    return rf"(.*\.)?({pattern})$"
