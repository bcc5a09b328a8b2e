"""Tied embeddings: one matrix that is both the input embedding and the output head."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

INPUT_SUFFIXES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
OUTPUT_SUFFIXES = ("lm_head.weight", "embed_out.weight")
VOCABULARY_SUFFIXES = (*INPUT_SUFFIXES, *OUTPUT_SUFFIXES, "lm_head.bias", "embed_tokens_per_layer.weight")
# Model types whose transformers config ties the embeddings unless config.json says otherwise; a test compares them.
TIED_BY_DEFAULT = frozenset((
    "aya_vision", "bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "biogpt", "blenderbot",
    "blenderbot-small", "blip", "bloom", "camembert", "cohere", "cohere2", "cohere2_moe", "cohere2_vision",
    "cohere_compass_text", "cpmant", "ctrl", "data2vec-text", "deepseek_vl", "deepseek_vl_hybrid",
    "diffusion_gemma", "electra", "ernie", "ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe", "falcon",
    "falcon_mamba", "florence2", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text",
    "gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_assistant", "gemma4_unified_text", "got_ocr2",
    "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox_japanese", "granite_docling", "granite_swa",
    "hunyuan_vl", "hyperclovax_vision_v2", "internvl", "janus", "jetmoe", "kimi_k25", "kosmos-2", "kosmos-2.5",
    "lfm2", "lfm2_moe", "lfm2_vl", "lfm3", "lfm3_vl", "lighton_ocr", "mamba", "marian", "mbart",
    "megatron-bert", "minicpm3", "minicpm_ocr", "mistral3", "modernbert-decoder", "moss_transcribe_diarize",
    "mpt", "mvp", "openai-gpt", "opt", "ovis2", "paddleocr_vl", "paligemma", "pegasus", "plbart",
    "pp_chart2table", "prophetnet", "recurrent_gemma", "roberta", "roberta-prelayernorm", "roc_bert",
    "roformer", "shieldgemma2", "smollm3", "starcoder2", "t5gemma2", "trocr", "udop", "vaultgemma", "whisper",
    "xglm", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod", "youtu", "zamba", "zamba2", "zaya",
))  # fmt: skip


@dataclass(frozen=True)
class Tied:
    """Whether a checkpoint's input embedding and output head are tied, and which of them it stores.

    Attributes:
        tied: whether the model uses one matrix for both.
        stored: names of the stored tensors among the two; a tied checkpoint usually stores one, some store two copies.
        absent: name suffixes of the one that a tied checkpoint does not store.
    """

    tied: bool
    stored: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def copies(self) -> tuple[str, ...]:
        """Names of the two copies that must stay equal; empty if nothing is tied or only one copy is stored."""
        return self.stored if self.tied and len(self.stored) == 2 else ()


def find_tied(config: Mapping[str, Any], names: Iterable[str]) -> Tied:
    """Return from config and tensor names whether the embeddings are tied.

    If the config does not say, the default of the model type in transformers holds; for other types they count as tied
    if an input embedding but no output head is stored.

    >>> find_tied({"tie_word_embeddings": True}, ["model.embed_tokens.weight"]).tied
    True
    """
    names = sorted(names)
    inputs = [name for name in names if name.endswith(INPUT_SUFFIXES)]
    outputs = [name for name in names if name.endswith(OUTPUT_SUFFIXES)]
    written = _written(config)
    tied = written if written is not None else _by_default(config) or (bool(inputs) and not outputs)
    absent = (() if inputs else INPUT_SUFFIXES) + (() if outputs else OUTPUT_SUFFIXES)
    return Tied(tied, tuple(inputs[:1] + outputs[:1]), absent if tied else ())


def share_rows(name: str, one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether two shapes of a tensor differ in the rows of the vocabulary only.

    >>> share_rows("lm_head.weight", (512, 64), (513, 64)), share_rows("model.norm.weight", (64,), (65,))
    (True, False)
    """
    rows_only = len(one) == len(other) > 0 and one[1:] == other[1:] and one[0] != other[0]
    return rows_only and name.endswith(VOCABULARY_SUFFIXES)


def _by_default(config: Mapping[str, Any]) -> bool:
    owners = (config, config.get("text_config"))
    types = [owner.get("model_type") for owner in owners if isinstance(owner, Mapping)]
    return any(isinstance(name, str) and name in TIED_BY_DEFAULT for name in types)


def _written(config: Mapping[str, Any]) -> bool | None:
    for owner in (config, config.get("text_config")):
        if isinstance(owner, Mapping) and isinstance(owner.get("tie_word_embeddings"), bool):
            return bool(owner["tie_word_embeddings"])
    return None
