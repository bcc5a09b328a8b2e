"""The tokenizer of a GGUF file, and the ids at which its replies end."""

from pathlib import Path
from typing import Any

import numpy as np

from .header import GgufHeader

TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
SCORES, TYPES = "tokenizer.ggml.scores", "tokenizer.ggml.token_type"
TEMPLATE = "tokenizer.chat_template"
CONTROL = 3
MAX_SPLITS = 200_000_000  # squares of lengths: merges are derived from every split of a token; Gemma 3 has 24 million
NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
END_KEYS = ("eos", "eot", "eom")
# Control tokens at which llama.cpp ends a reply whatever the file says (`llama-vocab.cpp`, special_eog_ids).
END_TEXTS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>")
)


def write_tokenizer(header: GgufHeader, folder: Path) -> None:
    """Write the tokenizer that a file describes, with its chat template; transformers builds it.

    Args:
        header: the file's header.
        folder: the model folder.

    Raises:
        ArtefactError: the file has none, or it is inconsistent or of a kind that transformers does not know.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import (  # type: ignore[attr-defined]  # it is exported lazily
        GGUF_TOKENIZER_MAPPING,
        convert_gguf_tokenizer,
    )

    tokens = _check_tokens(header)
    keys = {name: f"tokenizer.{key}" for key, name in GGUF_TOKENIZER_MAPPING["tokenizer"].items()}
    described = {name: _plain(header.pairs[key]) for name, key in keys.items() if key in header.pairs}
    named = {name: None if (index := _id(header, key)) is None else tokens[index] for name, key in NAMED.items()}
    try:
        backend, _ = convert_gguf_tokenizer(header.pairs["general.architecture"], described)
        tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=backend,
            add_bos_token=_flag(header, "bos", described["tokenizer_type"] == "llama"),
            add_eos_token=_flag(header, "eos", False),
            clean_up_tokenization_spaces=False,
            **named,
        )
    except Exception as error:  # the tokenizers library raises no narrower type
        raise header.broken("a tokenizer", f"{' '.join(str(error).split()) or type(error).__name__:.300}") from None
    tokenizer.chat_template = header.text(TEMPLATE)
    highest = max(tokenizer.get_vocab().values())
    if highest >= header.tensors["token_embd.weight"].shape[0]:
        raise header.broken("an embedding for each token", f"none for token {highest}")
    tokenizer.save_pretrained(folder)


def special_ids(header: GgufHeader) -> dict[str, Any]:
    """Return what a config says of special tokens; of the ends of a reply, those of the file and known ends of a turn.

    Raises:
        ArtefactError: an id is not one of the file's tokens.
    """
    kinds, tokens = header.pairs.get(TYPES, ()), header.texts(TOKENS) or []
    turns = [
        index
        for index, (kind, token) in enumerate(zip(kinds, tokens, strict=False))
        if kind == CONTROL and token in END_TEXTS
    ]
    ends = dict.fromkeys(index for index in (*(_id(header, key) for key in END_KEYS), *turns) if index is not None)
    return {
        "bos_token_id": _id(header, "bos"),
        "eos_token_id": list(ends) or None,
        "pad_token_id": _id(header, "padding"),
    }


def _check_tokens(header: GgufHeader) -> list[str]:
    """Return the tokens, after checking that the lists of the tokenizer belong together."""
    tokens = header.texts(TOKENS)
    if not tokens:
        raise header.broken(f"a vocabulary ({TOKENS})", "none")
    for key, number in ((SCORES, np.floating), (TYPES, np.integer)):
        values = header.pairs.get(key)
        if values is not None and not _is_array(values, number, len(tokens)):
            raise header.broken(f"{len(tokens):,} numbers as {key}", f"{values!r:.80}")
    merges = header.pairs.get(MERGES, [])
    if not isinstance(merges, list) or any(merge.count(" ") != 1 for merge in merges):
        raise header.broken(f"pairs of tokens as {MERGES}", f"{merges!r:.80}")
    n_splits = sum(len(token) ** 2 for token in tokens)
    if n_splits > MAX_SPLITS:
        raise header.broken("a vocabulary of words", f"{max(map(len, tokens)):,} characters in one token")
    return tokens


def _is_array(values: Any, kind: type, length: int) -> bool:
    return isinstance(values, np.ndarray) and np.issubdtype(values.dtype, kind) and len(values) == length


def _id(header: GgufHeader, name: str) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in header.pairs:
        return None
    index, n_tokens = header.number(key), len(header.texts(TOKENS) or ())
    if index is None or not 0 <= index < n_tokens:
        raise header.broken(f"the id of one of {n_tokens:,} tokens as {key}", f"{header.pairs[key]!r:.80}")
    return index


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _flag(header: GgufHeader, name: str, default: bool) -> bool:
    return bool(header.pairs.get(f"tokenizer.ggml.add_{name}_token", default) is True)
