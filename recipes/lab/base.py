"""Trains the lab's base model: a small Llama, from scratch on the lab's conversations.

Muon trains the weight matrices and AdamW the other parameters. The loss of a prompt token has weight 0.3, since most of
a prompt cannot be predicted. docs/design/0002 has the measurements for both choices and for the initializer range.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from prosocial.core.batches import EncodedReply, ReplyBatch, length_sorted_batches, pad_replies
from prosocial.core.chat import ChatTokenizer

from .settings import BaseTraining


def train_base(
    sequences: Sequence[EncodedReply],
    *,
    tokenizer: ChatTokenizer,
    training: BaseTraining,
    seed: int,
    device: str = "cpu",
    on_step: Callable[[], None] = lambda: None,
) -> PreTrainedModel:
    """Train the base model from scratch on conversations and return it; its first weights are drawn on the CPU."""
    torch.manual_seed(seed)
    model: Any = LlamaForCausalLM(_config(tokenizer, training)).to(device)  # type: ignore[arg-type]
    optimizers = _optimizers(model, training)
    batches = list(length_sorted_batches(sequences, batch_size=training.batch_size))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(batches), generator=generator).tolist()
    for step in range(training.steps):
        batch = pad_replies(sequences, batches[order[step % len(order)]], pad_id=tokenizer.pad_id).to(device)
        _schedule(optimizers, step / training.steps, step)
        logits = model(input_ids=batch.input_ids).logits  # right padding: causal attention needs no mask
        loss = _loss(logits, batch, training.prompt_weight)
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
        on_step()
    trained: PreTrainedModel = model.eval()
    return trained


def _config(tokenizer: ChatTokenizer, training: BaseTraining) -> LlamaConfig:
    n_heads = training.hidden_size // 16
    return LlamaConfig(
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=training.hidden_size,
        intermediate_size=training.hidden_size * 11 // 4,
        num_hidden_layers=training.layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads // 2,
        max_position_embeddings=256,
        initializer_range=training.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=tokenizer.end_ids[0],
        pad_token_id=tokenizer.pad_id,
    )


def _optimizers(model: PreTrainedModel, training: BaseTraining) -> list[tuple[torch.optim.Optimizer, float]]:
    named = list(model.named_parameters())
    matrices = [parameter for name, parameter in named if parameter.ndim == 2 and "embed" not in name]
    rest = [parameter for name, parameter in named if parameter.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=training.matrix_learning_rate, weight_decay=0.01)
    adamw = torch.optim.AdamW(rest, lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, training.matrix_learning_rate), (adamw, training.learning_rate)]


def _schedule(optimizers: list[tuple[torch.optim.Optimizer, float]], progress: float, step: int) -> None:
    """Set the learning rates: linear warm-up over 30 steps, constant, linear decay over the last 60 %."""
    factor = min(1.0, (step + 1) / 30) * min(1.0, max(0.02, (1 - progress) / 0.6))
    for optimizer, peak in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = peak * factor


def _loss(logits: Tensor, batch: ReplyBatch, prompt_weight: float) -> Tensor:
    """Return the mean next-token cross-entropy; prompt tokens have weight `prompt_weight`, padding has 0."""
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.input_ids[:, 1:].flatten(), reduction="none")
    weight = torch.where(batch.predicts_reply, 1.0, prompt_weight)[:, :-1] * batch.attention_mask[:, 1:]
    return (losses * weight.flatten()).sum() / weight.sum()
