"""The token ids that end a reply: every one that transformers would stop at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .special_tokens import MOST_IDS, optional_json


def end_ids(folder: Path, tokenizer: Tokenizer, eos_token: str | None) -> tuple[int, ...]:
    """Return the ids in generation_config.json, the tokenizer and config.json with its text_config, in order.

    Ids that the tokenizer lacks, as configs of small models often name, are left out.

    Args:
        folder: the model folder.
        tokenizer: its tokenizer.
        eos_token: text of its end-of-sequence token; None for none.
    """
    eos_id = tokenizer.token_to_id(eos_token) if eos_token else None
    config = optional_json(folder / "config.json")
    text_config = config.get("text_config")
    named = [
        *_listed(optional_json(folder / "generation_config.json")),
        *([] if eos_id is None else [eos_id]),
        *_listed(config),
        *_listed(text_config if isinstance(text_config, dict) else {}),
    ]
    return tuple(dict.fromkeys(index for index in named if 0 <= index < MOST_IDS and tokenizer.id_to_token(index)))


def _listed(config: dict[str, Any]) -> Iterator[int]:
    value = config.get("eos_token_id")
    for index in value if isinstance(value, list) else [value]:
        if isinstance(index, int) and not isinstance(index, bool):
            yield index
