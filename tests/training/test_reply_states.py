"""Reading replies: the logits of a few positions at a time, the same candidates, and one model in memory at a time."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from prosocial.core import batches
from prosocial.core.errors import InputError
from prosocial.steering.backbone import Backbone
from prosocial.steering.plausible import plausible
from prosocial.training import reply_states, state_files
from prosocial.training.gate.replies import LabelledReply
from prosocial.training.gate.states import FIELDS, GateStates, collect_gate_states
from prosocial.training.head.states import collect_states
from prosocial.training.reply_states import candidates_at, log_probability_of, top_candidates
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.training.state_files import StateFiles

from ..largest_tensor import LargestTensor
from .reward_helpers import NAMES, USEFUL, WARM, make_model, make_tokenizer

PROMPT = ({"role": "user", "content": "how do i improve my garden plan?"},)
REPLIES = [
    LabelledReply(PROMPT, f"{WARM} {USEFUL} " * (1 + index % 4), frozenset({"drugs"} if index % 2 else ()))
    for index in range(10)
]
MANY_TOKENS = 5000


def collect(folder: Path, edited: Any, harmful: Any, **given: Any) -> GateStates:
    return collect_gate_states(
        edited, harmful, REPLIES, tokenizer=make_tokenizer(folder), categories=["drugs"], plausible_k=5, **given
    )


def wide_model(n_tokens: int = MANY_TOKENS) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=n_tokens, **sizes)).eval()


@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 10))
def test_the_candidates_of_a_large_vocabulary_are_the_highest(n_tokens: int, k: int, seed: int) -> None:
    logits = torch.randn(3, n_tokens, generator=torch.Generator().manual_seed(seed))
    value, ids = top_candidates(logits, k)
    expected, expected_ids = plausible(logits, k)
    assert torch.equal(value, expected) and torch.equal(ids, expected_ids)


def test_candidates_and_log_probabilities_are_those_of_whole_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, hidden = Backbone(wide_model()), torch.randn(7, 32)
    whole = backbone.logits(hidden)
    monkeypatch.setattr(reply_states, "MOST_LOGITS", 2 * MANY_TOKENS)
    found = candidates_at(backbone, hidden, 9)

    assert torch.equal(found.ids, whole.topk(9).indices)
    expected = whole.log_softmax(-1).gather(-1, found.ids)
    assert torch.allclose(found.log_probability, expected, atol=1e-5)
    assert torch.allclose(log_probability_of(backbone, hidden, found.ids), expected, atol=1e-5)


def test_no_tensor_is_as_large_as_all_positions_times_the_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, most = wide_model(), 8 * MANY_TOKENS
    monkeypatch.setattr(reply_states, "MOST_LOGITS", most)
    reward = RewardModel(wide_model(), RewardConfig(attributes=NAMES, targets=r".*\.v_proj"))
    tokenizer = make_tokenizer(tmp_path)
    sequences = [reply_states_sequence(tokenizer, item) for item in REPLIES]
    n_positions = sum(len(item.reply_ids) for item in sequences)
    with LargestTensor() as largest:
        collect(tmp_path, model, model)
        collect_states(reward, sequences, torch.full((10, 2), 0.5), plausible_k=5, pad_id=0)
    assert largest.numel <= max(most, MANY_TOKENS * 32), largest.made_by
    assert n_positions * MANY_TOKENS > 10 * most


def reply_states_sequence(tokenizer: Any, item: LabelledReply) -> Any:
    return batches.encode_reply(tokenizer, item.messages, item.reply)


def test_states_do_not_depend_on_the_batches_nor_on_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_tokenizer(tmp_path)
    models = make_model(tokenizer), make_model(tokenizer, seed=1)
    at_once = collect(tmp_path, *models)
    monkeypatch.setattr(batches, "MOST_TOKENS", {"cpu": 60})
    monkeypatch.setattr(reply_states, "PART_REPLIES", 3)
    apart = collect(tmp_path, *models, files=StateFiles(tmp_path / "states"))
    for name in FIELDS:
        assert torch.allclose(getattr(apart, name).float(), getattr(at_once, name).float(), atol=1e-5), name


def test_a_batch_for_which_memory_is_missing_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(make_tokenizer(tmp_path))
    expected, own, sizes = collect(tmp_path, model, None), reply_states.reply_hidden, []

    def cramped(backbone: Backbone, batch: batches.ReplyBatch) -> torch.Tensor:
        sizes.append(len(batch.rows))
        return own(backbone, batch) if len(batch.rows) <= most else torch.empty(1 << 60)

    for most in (3, 0):
        monkeypatch.setattr("prosocial.training.gate.states.reply_hidden", cramped)
        if most:
            states = collect(tmp_path, model, None)
            assert torch.allclose(states.hidden, expected.hidden, atol=1e-5) and max(sizes) > 3
        else:
            with pytest.raises(InputError, match="one row should fit into memory, it does not: lower max_tokens"):
                collect(tmp_path, model, None)


def test_two_models_that_are_opened_are_never_in_memory_together(tmp_path: Path) -> None:
    tokenizer, alive = make_tokenizer(tmp_path), []

    def opener(seed: int) -> Any:
        def opened() -> PreTrainedModel:
            gc.collect()
            assert not any(model() is not None for model in alive)
            model = make_model(tokenizer, seed=seed)
            alive.append(weakref.ref(model))
            return model

        return opened

    states = collect(tmp_path, opener(0), opener(1))
    given = collect(tmp_path, make_model(tokenizer), make_model(tokenizer, seed=1))
    assert len(alive) == 2 and torch.equal(states.log_ratio, given.log_ratio)


def test_a_killed_reading_goes_on_with_the_parts_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "SYNC_SECONDS", -1.0)
    monkeypatch.setattr(reply_states, "PART_REPLIES", 2)
    tokenizer = make_tokenizer(tmp_path)
    models, seen = (make_model(tokenizer), make_model(tokenizer, seed=1)), []

    def killing(n: int) -> None:
        seen.append(n)
        if sum(seen) == 14:  # the harmful model has read two of five parts
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path, *models, files=StateFiles(tmp_path / "states"), on_batch=killing)
    read: list[int] = []
    own = reply_states.reply_hidden
    monkeypatch.setattr(
        "prosocial.training.gate.states.reply_hidden",
        lambda backbone, batch: (read.extend(batch.rows.tolist()), own(backbone, batch))[1],
    )
    again = collect(tmp_path, *models, files=StateFiles(tmp_path / "states"))
    assert len(read) == 10 - 2  # the part at which it was killed is read again
    assert torch.equal(again.log_ratio, collect(tmp_path, *models).log_ratio)
    read.clear()
    collect(tmp_path, models[1], models[0], files=StateFiles(tmp_path / "states"))
    assert len(read) == 20  # states of another model are not its own


def test_states_of_other_settings_are_read_anew(tmp_path: Path) -> None:
    tokenizer, files = make_tokenizer(tmp_path), StateFiles(tmp_path / "states")
    model, given = make_model(tokenizer), {"tokenizer": tokenizer, "categories": ["drugs"], "files": files}
    for k, discount in ((5, 0.0), (7, 0.0), (7, 0.5)):
        spans = [replace(item, spans=((0, 4),) if item.categories else ()) for item in REPLIES]
        found = collect_gate_states(model, None, spans, plausible_k=k, discount=discount, **given)  # type: ignore[arg-type]
        expected = collect_gate_states(
            model, None, spans, plausible_k=k, discount=discount, tokenizer=tokenizer, categories=["drugs"]
        )
        assert torch.equal(found.candidates, expected.candidates) and torch.equal(found.labels, expected.labels)
