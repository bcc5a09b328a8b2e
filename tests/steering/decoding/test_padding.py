"""Rows of different lengths in one batch get the replies that they get alone; a batch too large is halved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from prosocial.core.chat import ChatTokenizer
from prosocial.core.errors import InputError
from prosocial.core.protocols import Message
from prosocial.steering.decoding.controls import ControlArrays
from prosocial.steering.decoding.engine import PAD
from prosocial.steering.decoding.loop import generate
from prosocial.steering.torch_engine import PlainEngine, SteeredEngine, TorchStream

from ...architectures import random_model


@pytest.fixture(scope="module")
def tokenizer(llama_folder: Path) -> ChatTokenizer:
    return ChatTokenizer(llama_folder)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padded_prompts_get_the_same_replies(
    pico: Any, tokenizer: ChatTokenizer, kind: str, temperature: float
) -> None:
    engine, conversations = SteeredEngine(pico.steered(kind)), pico.conversations(9)
    options: dict[str, Any] = {"temperature": temperature, "max_new_tokens": 8}
    alone, padded = (generate(engine, tokenizer, conversations, pad=pad, **options) for pad in (False, True))

    assert [reply.token_ids for reply in padded] == [reply.token_ids for reply in alone]
    assert len({len(tokenizer.encode_chat(messages)) for messages in conversations}) == 3


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "gemma 2", "gemma 3", "phi-3", "cohere", "gpt-oss", "bloom"])
def test_padding_changes_no_logit(kind: str) -> None:
    """Some layers look back a few tokens only: padding must not take a place among them."""
    engine = PlainEngine(random_model(kind))
    rows = [list(range(2, 9)), list(range(3, 24))]
    width = max(map(len, rows))
    ids = np.array([[PAD] * (width - len(row)) + row for row in rows])
    padded = engine.prefill(ids, None, capacity=40)
    alone = [engine.prefill(np.array([row]), None, capacity=40) for row in rows]
    for token in (5, 6, 7):
        for index, stream in enumerate(alone):
            np.testing.assert_allclose(padded.decision.logits[index], stream.decision.logits[0], atol=1e-4)
            stream.step(np.array([token]))
        padded.step(np.array([token, token]))
    padded.keep(np.array([0]))
    np.testing.assert_allclose(padded.decision.logits[0], alone[0].decision.logits[0], atol=1e-4)


class Cramped(SteeredEngine):
    """Has room for a few rows, and runs out of memory at a later step of the first batches."""

    def __init__(self, steered: Any, most: int, at_step: int) -> None:
        super().__init__(steered)
        self.most, self.at_step, self.sizes = most, at_step, list[int]()

    def prefill(self, ids: NDArray[np.int64], controls: ControlArrays | None, *, capacity: int) -> TorchStream:
        self.sizes.append(len(ids))
        stream, step, n_steps = super().prefill(ids, controls, capacity=capacity), 0, self.at_step
        own = stream.step

        def limited(tokens: NDArray[np.int64]) -> None:
            nonlocal step
            step += 1
            if len(ids) > self.most and step > n_steps:
                torch.empty(1 << 60)
            own(tokens)

        stream.step = limited  # type: ignore[method-assign]
        return stream


@pytest.mark.parametrize("pad", [False, True])
def test_what_was_drawn_before_memory_ran_out_is_kept(pico: Any, tokenizer: ChatTokenizer, pad: bool) -> None:
    steered, conversations = pico.steered(), [list[Message](pico.conversations(1)[0])] * 8
    expected = generate(SteeredEngine(steered), tokenizer, conversations, temperature=1.0)
    engine = Cramped(steered, most=2, at_step=2)
    replies = generate(engine, tokenizer, conversations, temperature=1.0, pad=pad)

    assert [reply.token_ids for reply in replies] == [reply.token_ids for reply in expected]
    assert engine.sizes[:2] == [8, 4] and max(engine.sizes[2:]) <= 2


def test_one_row_that_does_not_fit_is_one_clear_line(pico: Any, tokenizer: ChatTokenizer) -> None:
    engine = Cramped(pico.steered(), most=0, at_step=0)
    with pytest.raises(InputError, match=r"a conversation of \d+ tokens should fit into memory, it does not: choose a"):
        generate(engine, tokenizer, pico.conversations(2))
