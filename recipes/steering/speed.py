"""Measures how fast a model computes here: one small batch of each kind, on layers of its shape with made-up weights.

Of a deep model a few layers are built, twice with different depths, and the times are extrapolated to all layers. So
neither its weights nor their memory are needed, and the measurement takes seconds for a model of any size.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from prosocial.core.chat import ChatTokenizer
from prosocial.core.placement import Placement
from prosocial.steering.decoding.loop import generate
from prosocial.steering.torch_engine import PlainEngine

from ..workflow.resources import anonymous_bytes
from .workload import ROWS_AT_ONCE, Speed

DEPTHS = (2, 6)  # layers that are built of a deeper model
ROWS, REPLY_SHARE, CHUNK = 4, 0.5, 128  # a batch; its positions that need logits; positions with logits at once
FEW, MANY = 2, 10  # new tokens of two draws, whose difference is free of the prompt
LONG_SECONDS = 4.0  # a batch that takes longer is measured once
WEIGHT = 0.01


def measure_speed(folder: Path, placement: Placement, *, n_tokens: int, trains: bool = True) -> Speed:
    """Return the speed of a model's shape, from one small batch of each kind.

    Args:
        folder: a checkpoint with a tokenizer; only its `config.json` and tokenizer are read.
        placement: device and dtype of the weights.
        n_tokens: tokens of a prompt with its reply.
        trains: whether a training step is measured too; otherwise its numbers are 0.
    """
    depth = AutoConfig.from_pretrained(str(folder), trust_remote_code=False).get_text_config().num_hidden_layers
    depths = DEPTHS if depth > DEPTHS[1] else (depth,)
    few, *more = (_measured(folder, placement, n, n_tokens=n_tokens, trains=trains) for n in depths)
    if not more:
        return Speed(*few)
    slope = (more[0] - few) / (DEPTHS[1] - DEPTHS[0])
    return Speed(*np.maximum(0.0, more[0] + np.maximum(0.0, slope) * (depth - DEPTHS[1])))


def _measured(folder: Path, placement: Placement, depth: int, *, n_tokens: int, trains: bool) -> Any:
    """Return the fields of `Speed` as an array, for a model with so many layers."""
    model, tokenizer = _shape(folder, placement.torch_dtype, depth).to(placement.device), ChatTokenizer(folder)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, tokenizer.n_words, (ROWS, n_tokens), generator=generator).to(model.device)
    tokens = ids.numel()
    read = _seconds(lambda: _read(model, ids)) / tokens
    engine = PlainEngine(model)

    def draw(rows: int, n_new: int) -> None:
        keys = [str(row) for row in range(rows)]
        messages = [{"role": "user", "content": "How are you?"}]
        generate(engine, tokenizer, [messages] * rows, temperature=1.0, max_new_tokens=n_new, row_keys=keys)

    steps = [_seconds(partial(draw, rows, MANY)) - _seconds(partial(draw, rows, FEW)) for rows in (1, ROWS_AT_ONCE)]
    alone, many = (max(1e-6, seconds / (MANY - FEW)) for seconds in steps)
    train = train_bytes = 0.0
    if trains:
        model.requires_grad_(False)
        model.enable_input_require_grads()
        with _peak_bytes() as peak:
            train = _seconds(lambda: _train(model, ids)) / tokens
        train_bytes = max(0, peak[0]) / tokens
    return np.array([read, train, alone, many, train_bytes])


def _shape(folder: Path, dtype: torch.dtype, depth: int) -> Any:
    """Return a model of this shape with so many layers, all of whose weights are the same number."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    text = config.get_text_config()
    text.num_hidden_layers = depth
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:depth]
    auto: Any = AutoModelForCausalLM
    with no_init_weights():
        model = auto.from_config(config, dtype=dtype, trust_remote_code=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(WEIGHT)
    return model.eval()


def _hidden(model: Any, ids: torch.Tensor) -> torch.Tensor:
    states: torch.Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return states[:, : round(REPLY_SHARE * ids.shape[1])].flatten(0, 1)  # [N, H]


@torch.no_grad()
def _read(model: Any, ids: torch.Tensor) -> None:
    hidden = _hidden(model, ids)
    for chunk in hidden.chunk(math.ceil(len(hidden) / CHUNK)):
        model.get_output_embeddings()(chunk).float().logsumexp(-1)


def _train(model: Any, ids: torch.Tensor) -> None:
    """Do a forward and backward pass; the logits in chunks, so that their gradient is not kept for all positions."""
    hidden = _hidden(model, ids)
    leaf = hidden.detach().requires_grad_()
    for chunk in leaf.chunk(math.ceil(len(leaf) / CHUNK)):
        torch.autograd.backward(model.get_output_embeddings()(chunk).float().logsumexp(-1).sum())
    torch.autograd.backward(hidden, leaf.grad)


def _seconds(work: Callable[[], None]) -> float:
    """Return the shorter of two times; the first one of long work, which warms up while it runs."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - started)
        if times[-1] > LONG_SECONDS:
            break
    return min(times)


@contextmanager
def _peak_bytes() -> Iterator[list[int]]:
    """Yield a list that holds, after the block, by how much the anonymous memory grew at its highest."""
    before, peak, ended = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        for _ in itertools.takewhile(lambda _: not ended.wait(0.01), itertools.count()):
            peak[0] = max(peak[0], anonymous_bytes() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
