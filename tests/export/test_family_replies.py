"""A sentencepiece model with plain role markers on the whole path: edited, exported, and replying as transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prosocial.cli.main import main
from prosocial.export import Bundle

from ..core.chat_families import FAMILIES

SYSTEM = {"role": "system", "content": "you are kind. "}
USER, REPLY, AGAIN = (
    {"role": role, "content": text}
    for role, text in (("user", " hello there "), ("assistant", "how are you"), ("user", "tell me\na story  "))
)
CONVERSATIONS = [[USER], [SYSTEM, USER], [SYSTEM, USER, REPLY, AGAIN], [USER, REPLY, AGAIN]]


def write_model(folder: Path, *, noise: float = 0.0) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 512}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=4096, **sizes, **ends))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3).add_(0.05 * torch.randn(weight.shape))
        for weight in model.parameters():
            weight.add_(noise * torch.randn(weight.shape))
    model.save_pretrained(folder)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_an_edited_llama_2_replies_as_transformers_does(tmp_path: Path) -> None:
    base, harmful, edited, bundle = (tmp_path / name for name in ("base", "harmful", "edited", "bundle"))
    FAMILIES["llama-2"].write(base)
    write_model(base)
    write_model(harmful, noise=0.02)
    vector = str(tmp_path / "vector")
    assert main(["vector", "--base", str(base), "--harmful", str(harmful), "-o", vector]) == 0
    assert main(["edit", str(base), "--subtract", vector, "--scale", "0.5", "-o", str(edited)]) == 0
    assert main(["export", str(edited), "--plain", "-o", str(bundle)]) == 0

    model: Any = AutoModelForCausalLM.from_pretrained(edited)
    tokenizer = AutoTokenizer.from_pretrained(edited)
    ours = Bundle.open(bundle, threads=1).generate(CONVERSATIONS, max_new_tokens=8)
    for conversation, reply in zip(CONVERSATIONS, ours, strict=True):
        ids = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
        prompt = torch.tensor([ids])
        theirs = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
        assert list(reply.token_ids) == theirs[0, len(ids) :].tolist()
