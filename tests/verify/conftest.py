"""A pico world for the tests that need torch: a llama of two layers with head, gate and a word tokenizer."""

import json
from pathlib import Path

import pytest

VOCABULARY, HIDDEN = 200, 32
ATTRIBUTES, CATEGORIES = ["empathy", "helpfulness"], ["violence", "other"]
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("verify") / "checkpoint"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def steered_folder(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A steered model on that checkpoint, with a random head and a random gate."""
    import torch

    from prosocial.editing.checkpoints import Checkpoint
    from prosocial.steering.decoding.config import DecodingConfig
    from prosocial.steering.gate import HarmGate
    from prosocial.steering.head import CompactHead
    from prosocial.steering.steered_model import assemble_steered

    folder = tmp_path_factory.mktemp("steered")
    torch.manual_seed(1)
    head, gate = CompactHead(ATTRIBUTES, HIDDEN, 4), HarmGate(CATEGORIES, VOCABULARY, HIDDEN, 4)
    with torch.no_grad():
        head.B.normal_(0.0, 0.3)
        gate.b.normal_(0.0, 0.1)
        gate.a.fill_(-0.5)
    for part in (head, gate):
        part.save(folder / "parts", checkpoint_fingerprint=Checkpoint.open(checkpoint_folder).fingerprint())
    config = DecodingConfig.model_validate(
        {
            "attributes": ATTRIBUTES,
            "categories": CATEGORIES,
            "plausible_k": 16,
            "harm_threshold": 0.6,
            "threshold_ceiling": 0.9,
            "max_new_tokens": 8,
        }
    )
    parts = folder / "parts"
    assemble_steered(checkpoint=checkpoint_folder, head=parts, gate=parts, config=config, out=folder / "steered")
    return folder / "steered"


@pytest.fixture(scope="session")
def bundle_folder(steered_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of that steered model."""
    from prosocial.export import export_bundle

    out = tmp_path_factory.mktemp("bundle") / "bundle"
    export_bundle(steered_folder, out, profile="ort")
    return out


@pytest.fixture
def probes_file(tmp_path: Path) -> Path:
    """Probes in the tokenizer's words."""
    rows = [
        {"id": f"{kind}{index}", "kind": kind, "text": f"word{7 * index + shift} word{index}", "cluster": f"c{index}"}
        for index in range(4)
        for shift, kind in enumerate(("harmful", "twin", "benign"))
    ]
    rows.append({"id": "attacked", "kind": "attack", "attack": "prefill", "text": "word3", "prefill": "word9 word10"})
    path = tmp_path / "probes.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<s>", "</s>", "system", "user", "assistant"]
    words += [f"word{index}" for index in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="word0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "</s>", "bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
