"""A steered model without a gate closes nothing and shifts by the formula; training draws its replies from one."""

from pathlib import Path

import numpy as np
import torch

from prosocial.steering.decoding.config import DecodingConfig
from prosocial.steering.decoding.controls import Steering, control_arrays
from prosocial.steering.head import CompactHead
from prosocial.steering.steered_model import SteeredModel
from prosocial.steering.torch_engine import SteeredEngine

from ..training.reward_helpers import NAMES, make_model, make_tokenizer

CONFIG = DecodingConfig(attributes=list(NAMES), categories=["other"], plausible_k=20, beta=0.5)


def make_ungated(folder: Path) -> SteeredModel:
    tokenizer = make_tokenizer(folder)
    head = CompactHead(NAMES, 32, 4)
    torch.manual_seed(0)
    torch.nn.init.normal_(head.B)
    return SteeredModel(make_model(tokenizer), head, None, CONFIG, end_ids=tokenizer.end_ids)


def test_it_keeps_every_plausible_token_and_adds_its_shift(tmp_path: Path) -> None:
    steered = make_ungated(tmp_path)
    ids = np.array([[3, 4, 7], [6, 7, 8]])
    given = [Steering(preference={"empathy": 1.0}), Steering(preference={"empathy": 0.3, "helpfulness": 0.7})]
    decision = SteeredEngine(steered).prefill(ids, control_arrays(CONFIG, given), capacity=8).decision
    kept = np.isfinite(decision.logits)
    assert (kept.sum(1) == 20).all()
    with torch.no_grad():
        out = steered.backbone.model(input_ids=torch.from_numpy(ids), output_hidden_states=True)
        hidden, z0 = out.hidden_states[-1][:, -1], out.logits[:, -1]
        delta = steered.head(hidden, torch.tensor([[1.0, 0.0], [0.3, 0.7]]))
        expected = z0 + 2.0 * delta @ steered.backbone.output_weight.T
    np.testing.assert_allclose(decision.logits[kept], expected.numpy()[kept], rtol=1e-4, atol=1e-4)
    assert set(z0[0].topk(20).indices.tolist()) == set(np.flatnonzero(kept[0]).tolist())


def test_its_replies_are_drawn_and_name_no_risk(tmp_path: Path) -> None:
    prompts = [[{"role": "user", "content": "how do i improve my garden plan?"}]] * 3
    tokenizer = make_tokenizer(tmp_path)
    replies = make_ungated(tmp_path).generate(prompts, tokenizer, max_new_tokens=5, temperature=1.0, seed=0)

    assert len({reply.text for reply in replies}) > 1
    assert all(reply.finish != "fallback" and reply.max_risk == {} for reply in replies)
