"""The comparison with torch: its memory does not depend on window times vocabulary, and only near ties may differ."""

import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import MistralConfig, MistralForCausalLM

from prosocial.export.graph import agreement, check_agreement, trace_graph
from prosocial.export.graph.wrapper import SteeredGraph
from prosocial.steering.gate import HarmGate
from prosocial.steering.head import CompactHead
from prosocial.steering.lexicographic import admissible, candidate_risk, disallowed_risk
from prosocial.steering.steered_model import SteeredModel

from ...architectures import SIZE
from ...pico_models import ATTRIBUTES, CATEGORIES, make_config

VOCABULARY, WINDOW, RANK = 16_384, 96, 4
MOST = 1 << 20  # logits at once, fewer than the constant's: the same test with a smaller world


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return result


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[SteeredGraph, Path]:
    """A steered model with a large vocabulary and window, traced, whose threshold then moved by half the tolerance."""
    size = SIZE | {
        "vocab_size": VOCABULARY,
        "sliding_window": WINDOW,
        "num_hidden_layers": 1,
        "max_position_embeddings": 2 * WINDOW,
    }
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**size)).eval()
    gate = HarmGate(CATEGORIES, VOCABULARY, size["hidden_size"], RANK)
    with torch.no_grad():  # every risk is near the threshold
        gate.M.mul_(1e-3)
        gate.a.fill_(-math.log(2 * len(CATEGORIES) - 1))
    steered = SteeredModel(
        model, CompactHead(ATTRIBUTES, size["hidden_size"], RANK), gate, make_config(harm_threshold=0.5), end_ids=[1]
    )
    wrapper = SteeredGraph(steered, "ort").eval()
    folder = tmp_path_factory.mktemp("lean")
    path = trace_graph(wrapper, folder).path
    steered.config = steered.config.model_copy(update={"harm_threshold": 0.5 + agreement.TOLERANCE / 2})
    return wrapper, path


def test_memory_depends_neither_on_the_window_nor_on_the_differing_decisions(
    graph: tuple[SteeredGraph, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper, path = graph
    monkeypatch.setattr(agreement, "MOST_LOGITS", MOST)
    assert (WINDOW + agreement.BEYOND_WINDOW) * VOCABULARY > MOST > VOCABULARY * RANK
    tracemalloc.start()
    with LargestTensor() as largest:
        result = check_agreement(path, wrapper)
    _, peak = tracemalloc.get_traced_memory()  # of NumPy's arrays
    tracemalloc.stop()
    assert result.crosses_window and result.n_near_ties > 0
    assert result.n_positions > MOST // VOCABULARY
    assert largest.numel <= MOST
    assert peak < 3 * 4 * MOST


@torch.no_grad()
def test_near_ties_are_those_of_the_definition(graph: tuple[SteeredGraph, Path]) -> None:
    wrapper, _ = graph
    steered, k, tolerance = wrapper.steered, wrapper.steered.config.plausible_k, 2e-4
    hidden = steered.backbone.hidden(torch.arange(2, 14)[None])[0, -1]
    z0, controls = steered.backbone.logits(hidden), steered.default_controls()
    order = z0.argsort(descending=True)
    tokens = torch.cat([order[: 2 * k], torch.arange(50)])
    actual = agreement.near_ties(steered, z0, hidden, controls, tokens, tolerance=tolerance)
    bound = admissible(controls, steered.ceilings)
    for token, is_near in zip(tokens.tolist(), actual.tolist(), strict=True):
        risk = candidate_risk(steered.require_gate(), hidden[None, None], torch.tensor([[[token]]]))
        from_threshold = disallowed_risk(risk, bound.allowed).item() - bound.harm_threshold.item()
        nearest_other = z0[order[k]] if z0[token] >= z0[order[k - 1]] else z0[order[k - 1]]
        expected = abs(from_threshold) <= tolerance or abs(z0[token] - nearest_other).item() <= tolerance
        assert is_near == expected
    assert 0 < int(actual.sum()) < len(tokens)
