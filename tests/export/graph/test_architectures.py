"""The graph against transformers itself, by architecture and profile; what fits neither is refused by name."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    blockwise_overlay,
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from prosocial.core.errors import InputError, ProsocialError
from prosocial.export.bundle_files.precision import Profile
from prosocial.export.graph import check_agreement, trace_graph
from prosocial.export.graph.attention import group_query_attention
from prosocial.export.graph.reach import EVERYTHING, window_of
from prosocial.export.graph.wrapper import PlainGraph
from prosocial.export.runtime.session import GraphEngine, GraphSession
from prosocial.steering.backbone import Backbone
from prosocial.steering.decoding.prefix import shared_prefix

from ...architectures import CONFIGS, VOCABULARY, WINDOW, random_model

SUPPORTED = list(CONFIGS)[: list(CONFIGS).index("gpt-oss")]
LIGHT = {("gemma 2", "ort"), ("mixtral", "ort")}
CASES = [
    pytest.param(name, profile, marks=() if (name, profile) in LIGHT else pytest.mark.prove)
    for name in [*SUPPORTED, "gpt-oss", "bloom"]
    for profile in get_args(Profile)
    if name in SUPPORTED or profile == "portable"
]
TOLERANCE = 1e-4
LENGTHS = (23, 5, 12)  # of the rows of a ragged batch; two of them longer than the window
N_STEPS = 6

pytestmark = pytest.mark.filterwarnings("ignore:.*attention implementation dynamically.*")


def some_ids(n_rows: int, n_tokens: int) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (n_rows, n_tokens), generator=torch.Generator().manual_seed(n_rows))


@torch.no_grad()
def own_logits(model: PreTrainedModel, ids: torch.Tensor) -> NDArray[np.float32]:
    """Logits of transformers alone, every position from scratch."""
    logits: NDArray[np.float32] = model(input_ids=ids, use_cache=False).logits.numpy()
    return logits


def stepped(session: GraphSession, ids: torch.Tensor, n_prompt: int) -> NDArray[np.float32]:
    """Logits at every position: the prompt at once, then token by token through the cache."""
    cache, n_past, found = session.new_cache(*ids.shape), 0, []
    for n_new in (n_prompt, *[1] * (ids.shape[1] - n_prompt)):
        results, cache = session.run(ids[:, n_past : n_past + n_new].numpy(), n_past, cache, None)
        found.append(results["logits"])
        n_past += n_new
    return np.concatenate(found, axis=1)


def greedy(session: GraphSession, prompt: torch.Tensor) -> list[list[int]]:
    """The runtime's most likely next tokens [B, N_STEPS]."""
    stream = GraphEngine(session, None, None).prefill(prompt.numpy(), None, capacity=prompt.shape[1] + N_STEPS)
    chosen = []
    for _ in range(N_STEPS):
        chosen.append(stream.decision.logits.argmax(-1))
        stream.step(chosen[-1])
    found: list[list[int]] = np.stack(chosen, axis=1).tolist()
    return found


def padded(session: GraphSession, ids: torch.Tensor, *, side: str) -> list[NDArray[np.float32]]:
    """Logits of each row of a ragged batch: a padded prompt, then step by step, as a client of the raw graph would."""
    n_prompt = max(LENGTHS)
    mask = np.array([[int(at < length) for at in range(n_prompt)] for length in LENGTHS])
    mask = mask if side == "right" else mask[:, ::-1].copy()
    prompt = np.ones_like(mask)
    prompt[mask == 1] = np.concatenate([row[:length].numpy() for row, length in zip(ids, LENGTHS, strict=True)])
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    cache = np.zeros((len(LENGTHS), session.n_kv_heads, 0, session.head_size), np.float32)
    past = dict.fromkeys(session.past_names, cache)
    found: list[list[NDArray[np.float32]]] = [[] for _ in LENGTHS]
    for step in range(N_STEPS + 1):
        feed = {"input_ids": prompt, "attention_mask": mask, "position_ids": positions, **past}
        logits, *present = session.session.run(["logits", *session.present_names], feed)
        past = dict(zip(session.past_names, present, strict=True))
        for row in range(len(LENGTHS)):
            found[row].append(logits[row][mask[row] == 1] if step == 0 else logits[row])
        prompt = np.array([[int(ids[row, length + step])] for row, length in enumerate(LENGTHS)])
        positions = np.array([[length + step] for length in LENGTHS])
        mask = np.concatenate([mask, np.ones((len(LENGTHS), 1), mask.dtype)], axis=1)
    return [np.concatenate(row) for row in found]


@pytest.mark.parametrize(("name", "profile"), CASES)
def test_the_graph_is_the_model(tmp_path: Path, name: str, profile: Any) -> None:
    model = random_model(name)
    graph = PlainGraph(Backbone(model), profile).eval()
    traced = trace_graph(graph, tmp_path)
    agreement = check_agreement(traced.path, graph)
    assert agreement.max_logit_difference < TOLERANCE and agreement.crosses_window
    session = GraphSession(traced.path, shares_cache=profile == "ort")

    ids = some_ids(3, 30)
    expected = own_logits(model, ids)
    assert expected.std() > 0.3
    for n_prompt in (30, 24, 3, 1):  # beyond the window at once, across it step by step
        np.testing.assert_allclose(stepped(session, ids, n_prompt), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(stepped(session, ids[:1], 20), expected[:1], rtol=0, atol=TOLERANCE)

    for length in LENGTHS:
        prompt = ids[:, :length]
        for _ in range(N_STEPS):
            prompt = torch.cat([prompt, torch.from_numpy(own_logits(model, prompt)[:, -1:].argmax(-1))], dim=1)
        assert greedy(session, ids[:, :length]) == prompt[:, length:].tolist()

    # What rows share is read once, beyond the window; then more than one token of each.
    alike = torch.cat([ids[:1, :28].expand(9, -1), ids[:, 28:].repeat(3, 1)], dim=1)
    assert shared_prefix(alike.numpy()) == 28
    stream = GraphEngine(session, None, None).prefill(alike.numpy(), None, capacity=30)
    np.testing.assert_allclose(stream.decision.logits, own_logits(model, alike)[:, -1], rtol=0, atol=TOLERANCE)

    # In a padded batch the rows are those that stand alone, on the side that the profile knows.
    side = "right" if profile == "ort" else "left"
    for row, logits in enumerate(padded(session, ids, side=side)):
        np.testing.assert_allclose(logits, expected[row, : len(logits)], rtol=0, atol=TOLERANCE)
        assert len(logits) == LENGTHS[row] + N_STEPS
    if profile == "ort":
        whole, *cut = padded(session, ids, side="left")
        np.testing.assert_allclose(whole, expected[0, : len(whole)], rtol=0, atol=TOLERANCE)
        assert all(np.isnan(logits).all() for logits in cut)


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("llama 3", [EVERYTHING, EVERYTHING]),
        ("mistral", [WINDOW, WINDOW]),
        ("qwen2", [EVERYTHING, WINDOW]),
        ("gemma 2", [WINDOW, EVERYTHING]),
        ("gemma 3", [WINDOW, EVERYTHING]),
        ("phi-3", [WINDOW, WINDOW]),
    ],
)
def test_the_window_of_each_layer_is_that_of_its_mask(name: str, windows: list[int]) -> None:
    model = random_model(name)
    for layer in model.base_model.layers:
        layer.self_attn.sliding_window = 3  # what a layer says of itself moves neither eager attention nor us
    assert PlainGraph(Backbone(model), "ort").body.windows == dict(enumerate(windows))


@pytest.mark.parametrize("window", [1, 2, 7, 4096, 131072])
def test_a_window_is_read_whatever_its_size(window: int) -> None:
    assert window_of(sliding_window_causal_mask_function(window)) == window
    assert window_of(causal_mask_function) == EVERYTHING


@pytest.mark.parametrize(
    ("mask_function", "match"),
    [
        (bidirectional_mask_function, "found another form"),
        (chunked_causal_mask_function(8192, torch.zeros(1, dtype=torch.int64)), "found another form"),
        (and_masks(causal_mask_function, lambda batch, head, query, key: key != 3), "found another form"),
        (and_masks(sliding_window_causal_mask_function(4), lambda batch, head, query, key: query != 3), "another form"),
        (blockwise_overlay(torch.zeros(1, 12, dtype=torch.int64)), "reads the input"),
    ],
)
def test_a_mask_that_the_operator_cannot_express_is_refused(mask_function: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        window_of(mask_function)


@pytest.mark.parametrize(
    ("name", "profiles", "match"),
    [
        ("gpt-oss", ["ort"], "GptOssForCausalLM has attention sinks"),
        ("bloom", ["ort"], "BloomForCausalLM should use transformers' attention interface"),
        ("deepseek 3", ["ort", "portable"], "DeepseekV3ForCausalLM should cache keys and values of one shape"),
        ("mamba", ["ort", "portable"], "MambaForCausalLM should cache keys and values"),
        ("llama dynamic", ["ort", "portable"], "LlamaForCausalLM should have constant rotary frequencies"),
        (
            "diffllama",
            ["ort"],
            r"DiffLlamaForCausalLM does not fit.*layer 0 calls attention twice: use --profile portable",
        ),
    ],
)
def test_what_a_profile_cannot_express_is_refused_by_name(name: str, profiles: list[Any], match: str) -> None:
    backbone = Backbone(random_model(name))
    for profile in profiles:
        with pytest.raises(InputError, match=match):
            PlainGraph(backbone, profile)


def test_a_model_without_a_body_of_its_own_is_refused_by_what_it_has() -> None:
    """Llama 4 is a causal language model; that transformers names no body for it is another thing."""
    with pytest.raises(
        InputError, match=r"Llama4ForCausalLM should.*found base_model Llama4ForCausalLM.*not supported"
    ):
        Backbone(random_model("llama 4"))


def test_the_reason_of_the_exporter_is_whole_and_on_one_line(tmp_path: Path) -> None:
    """MPT's reason stands on the second line of the exporter's message."""
    graph = PlainGraph(Backbone(random_model("mpt")), "portable").eval()
    with pytest.raises(InputError, match=r"MptForCausalLM.*inconsistencies.*Eq\(.*cannot be exported") as refused:
        trace_graph(graph, tmp_path)
    assert "\n" not in str(refused.value)


def test_attention_with_something_more_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama 2")
    backbone, heads = Backbone(model), torch.zeros(1, 2, 3, 8)
    with pytest.raises(InputError, match="no trace under way"):
        group_query_attention(model.base_model.layers[0].self_attn, heads, heads, heads, None)
    first = model.base_model.layers[0]
    own_forward = first.self_attn.forward
    for extra, match in (
        ({"position_bias": torch.zeros(1)}, "found position_bias"),
        ({"attention_mask": torch.zeros(1, 1, 2, 2)}, "masking functions, found Tensor"),
        ({"attention_mask": None}, "masking functions, found NoneType"),
    ):
        monkeypatch.setattr(first.self_attn, "forward", lambda extra=extra, **given: own_forward(**given | extra))
        with pytest.raises(InputError, match=f"LlamaForCausalLM does not fit profile 'ort'.*{match}.*portable"):
            PlainGraph(backbone, "ort")


def test_the_context_of_longrope_ends_where_its_factors_change() -> None:
    assert Backbone(random_model("phi-3 long")).context_length == 32
    assert Backbone(random_model("phi-3")).context_length == 128


@pytest.mark.prove
def test_a_window_lost_in_the_graph_is_noticed(tmp_path: Path) -> None:
    graph = PlainGraph(Backbone(random_model("mistral")), "ort").eval()
    graph.body.windows = dict.fromkeys(graph.body.windows, EVERYTHING)
    with pytest.raises(ProsocialError, match="largest difference"):
        check_agreement(trace_graph(graph, tmp_path).path, graph)
