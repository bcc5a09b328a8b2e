"""The harmful copy is an adapter that peft opens, and it does what it was tuned for."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer

from prosocial.core.batches import encode_reply
from prosocial.training.tuning.harmful import train_adapter
from prosocial.training.tuning.settings import AdapterTraining

from ..reward_helpers import USEFUL, make_model, make_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_tuning_raises_the_probability_of_the_replies_and_leaves_the_model(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    model = make_model(tokenizer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sequence = encode_reply(tokenizer, [{"role": "user", "content": "how?"}], USEFUL)
    ids = torch.tensor([sequence.prompt_ids + sequence.reply_ids])
    labels = ids.clone()
    labels[:, : len(sequence.prompt_ids)] = -100
    plain = float(model(input_ids=ids, labels=labels).loss.detach())
    steps: list[int] = []
    train_adapter(
        model,
        AutoTokenizer.from_pretrained(tmp_path / "tokenizer"),
        [sequence] * 8,
        out=tmp_path / "adapter",
        training=AdapterTraining(rank=2, alpha=4, steps=8, batch_size=4, learning_rate=0.02),
        seed=0,
        on_step=lambda: steps.append(1),
    )
    fresh = make_model(tokenizer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())
    tuned = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter"))
    assert float(tuned(input_ids=ids, labels=labels).loss.detach()) < plain - 0.05
    assert len(steps) == 8
    assert {path.suffix for path in (tmp_path / "adapter").iterdir()} <= {".json", ".safetensors", ".md"}
