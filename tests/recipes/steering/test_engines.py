"""The engines that training and measuring borrow: a head without a gate closes nothing and shifts by the formula."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prosocial.recipes.steering.engines import ungated_engine
from prosocial.steering.decoding.controls import Steering, control_arrays
from prosocial.steering.head import CompactHead

NAMES = ["empathy", "helpfulness"]


class Tokens:
    """What an engine asks of a tokenizer."""

    end_ids = (1,)


def test_a_head_without_a_gate_keeps_every_plausible_token_and_adds_its_shift() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=90, max_position_embeddings=64, **sizes)).eval()
    head = CompactHead(NAMES, 32, 4)
    torch.nn.init.normal_(head.B)
    engine = ungated_engine(model, head, Tokens(), 20, 0.5)
    ids = np.array([[3, 4, 5], [6, 7, 8]])
    asked = [Steering(preference={"empathy": 1.0}), Steering(preference={"empathy": 0.3, "helpfulness": 0.7})]
    decision = engine.prefill(ids, control_arrays(engine.config, asked), capacity=8).decision
    assert (np.isfinite(decision.logits).sum(1) == 20).all()
    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(ids), output_hidden_states=True)
        hidden, z0 = out.hidden_states[-1][:, -1], out.logits[:, -1]
        delta = head(hidden, torch.tensor([[1.0, 0.0], [0.3, 0.7]]))
        expected = z0 + 2.0 * delta @ model.get_output_embeddings().weight.T
    kept = np.isfinite(decision.logits)
    np.testing.assert_allclose(decision.logits[kept], expected.numpy()[kept], rtol=1e-4, atol=1e-4)
    assert set(z0[0].topk(20).indices.tolist()) == set(np.flatnonzero(kept[0]).tolist())
