"""Rotary embeddings left to the operator: only where it turns every layer's heads as the model does."""

from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from prosocial.export.graph import check_agreement, trace_graph
from prosocial.export.graph.rotary import RotaryTables, turned
from prosocial.export.graph.wrapper import CachedBackbone, PlainGraph
from prosocial.steering.backbone import Backbone

from ...architectures import random_model

pytestmark = pytest.mark.filterwarnings("ignore:.*attention implementation dynamically.*")


def tables_of(name: str) -> RotaryTables | None:
    return CachedBackbone(Backbone(random_model(name)), "ort").rotary


@pytest.mark.parametrize(
    ("name", "n_tables"), [("llama 3", 1), ("gemma 3", 2), ("phi-3 long", 1), ("smollm3", 1), ("qwen3 moe", 1)]
)
def test_tables_are_those_of_the_model(name: str, n_tables: int) -> None:
    model = random_model(name)
    backbone = Backbone(model)
    tables = CachedBackbone(backbone, "ort").rotary
    assert tables is not None and len(list(tables.buffers())) == 2 * n_tables
    assert all(table.shape[0] == backbone.context_length for table in tables.buffers())
    ids = torch.arange(5)[None]
    with torch.no_grad():  # the model still turns its heads by itself afterwards
        assert torch.equal(model(ids).logits, random_model(name)(ids).logits)


@pytest.mark.parametrize("name", ["gpt-2", "cohere"])
def test_other_rotations_stay_with_the_model(name: str) -> None:
    """GPT-2 has learned positions; Cohere turns neighbouring elements, which the operator would not."""
    assert tables_of(name) is None


def test_a_model_that_turns_by_other_tables_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama 3")
    rotary = model.model.rotary_emb
    own = type(rotary).forward

    def late(self: object, states: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shift = 1 if position_ids.shape[1] < 100 else 0  # of a prompt, not of the whole table
        return own(self, states, position_ids + shift)  # type: ignore[no-any-return]

    monkeypatch.setattr(type(rotary), "forward", late)
    assert CachedBackbone(Backbone(model), "ort").rotary is None


def test_heads_are_turned_by_halves() -> None:
    angles = torch.arange(3)[:, None] * torch.tensor([1.0, 0.1])
    head = torch.randn(1, 2, 3, 6, generator=torch.Generator().manual_seed(0))
    found = turned(head, (angles.cos(), angles.sin()))
    as_complex = torch.complex(head[..., :2], head[..., 2:4]) * torch.polar(torch.ones(3, 2), angles)
    torch.testing.assert_close(found, torch.cat([as_complex.real, as_complex.imag, head[..., 4:]], dim=-1))


def test_the_operator_turns_packed_heads(tmp_path: Path) -> None:
    graph = PlainGraph(Backbone(random_model("llama 3")), "ort").eval()
    traced = trace_graph(graph, tmp_path)
    attention = [node for node in ir.load(traced.path).graph if node.op_type == "GroupQueryAttention"]
    assert len(attention) == 2
    for node in attention:
        assert node.attributes["do_rotary"].value == 1 and node.inputs[1] is None and node.inputs[2] is None
        packed = node.inputs[0].producer() if node.inputs[0] is not None else None
        assert packed is not None and packed.op_type == "MatMul"
    assert not {"Cos", "Sin"} & traced.n_by_operator.keys()
    assert check_agreement(traced.path, graph).max_logit_difference < 1e-4
