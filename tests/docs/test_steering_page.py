"""The examples of docs/steering.md run, one after the other, in a folder with a model and a reward model."""

import re
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prosocial.editing.checkpoints import Checkpoint, load_model
from prosocial.training.reward import RewardConfig, RewardModel

PAGE = Path(__file__).parents[2] / "docs" / "steering.md"


def write_models(folder: Path) -> None:
    """Write a pico model and a reward model of two attributes."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=90, max_position_embeddings=64, eos_token_id=1, pad_token_id=1, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    reward = RewardModel(load_model(folder / "model"), RewardConfig(attributes=("empathy", "helpfulness")))
    with torch.no_grad():
        for parameter in reward.parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    digest = Checkpoint.open(folder / "model").fingerprint()
    reward.save(folder / "reward", checkpoint_fingerprint=digest, training={})


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    volume, product = map(float, capsys.readouterr().out.split())
    assert 0 < volume < 1 and 0 < product < 1
