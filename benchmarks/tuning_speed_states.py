"""How fast the gate's and the head's training read replies, against a plain loop over the same batches in bfloat16.

The plain loop is what one would write by hand: the model's forward pass, the output embedding at the replies'
positions, `topk` and `log_softmax`, kept in memory. Ours reads them into mapped files. A ratio of 1 is as fast.

    python benchmarks/tuning_speed_states.py CHECKPOINT [--rows 48] [--tokens 100] [--threads 2]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prosocial.core.batches import encode_reply, pad_replies, token_budget, token_budget_batches
from prosocial.core.chat import ChatTokenizer
from prosocial.editing.checkpoints import load_model
from prosocial.steering.backbone import Backbone
from prosocial.training.gate import LabelledReply, collect_gate_states
from prosocial.training.head.states import collect_states
from prosocial.training.reply_states import bytes_per_token
from prosocial.training.reward.model import RewardConfig, RewardModel
from prosocial.training.state_files import StateFiles

K = 128
ATTRIBUTES = ("empathy", "helpfulness")
WORDS = [
    "the",
    "old",
    "river",
    "town",
    "got",
    "its",
    "name",
    "from",
    "people",
    "who",
    "came",
    "there",
    "every",
    "summer",
    "to",
    "sell",
    "what",
    "they",
    "had",
    "grown",
]


def make_replies(tokenizer: ChatTokenizer, n_rows: int, n_tokens: int) -> list[LabelledReply]:
    """Return replies of about `n_tokens` tokens, of different lengths; every other one is harmful."""
    replies = []
    for row in range(n_rows):
        n_words = n_tokens * (60 + 80 * row // n_rows) // 100
        text = " ".join(WORDS[(row + at) % len(WORDS)] for at in range(n_words))
        messages = ({"role": "user", "content": " ".join(WORDS[: 4 + row % 12])},)
        replies.append(LabelledReply(messages, text, frozenset({"other"} if row % 2 else ())))  # type: ignore[arg-type]
    return replies


@torch.no_grad()
def plain_reading(model: Any, tokenizer: ChatTokenizer, replies: list[LabelledReply], n_passes: int) -> int:
    """Read all replies `n_passes` times and return the number of positions."""
    backbone, kept = Backbone(model), []
    sequences = [encode_reply(tokenizer, item.messages, item.reply) for item in replies]
    budget = token_budget(backbone.output_weight.device, bytes_per_token=bytes_per_token(backbone))
    for rows in token_budget_batches([item.length for item in sequences], budget=budget):
        batch = pad_replies(sequences, rows, pad_id=tokenizer.pad_id)
        for _ in range(n_passes):
            body = model.base_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
            hidden = body.last_hidden_state[batch.predicts_reply]
            for some in hidden.split(64):
                logits = model.get_output_embeddings()(some).float()
                ids = logits.topk(K).indices
                kept.append((some, ids, logits.log_softmax(-1).gather(-1, ids)))
    return sum(len(each[0]) for each in kept)


def gate_reading(folder: Path, tokenizer: ChatTokenizer, replies: list[LabelledReply]) -> tuple[float, float]:
    """Return the seconds of a plain loop over two models' reading and of the gate's."""
    models = [load_model(folder, dtype=torch.bfloat16) for _ in range(2)]
    plain = seconds(lambda: [plain_reading(model, tokenizer, replies, 1) for model in models])
    with tempfile.TemporaryDirectory() as states:
        ours = seconds(
            lambda: collect_gate_states(
                *models,
                replies,
                tokenizer=tokenizer,
                categories=["other"],
                plausible_k=K,
                files=StateFiles(Path(states, "gate")),
            )
        )
    return plain, ours


def head_reading(folder: Path, tokenizer: ChatTokenizer, replies: list[LabelledReply]) -> tuple[float, float]:
    """Return the seconds of a plain loop, once unadapted and once adapted, and of the head's reading of both."""
    model = load_model(folder, dtype=torch.bfloat16)
    sequences = [encode_reply(tokenizer, item.messages, item.reply) for item in replies]
    plain = seconds(lambda: plain_reading(model, tokenizer, replies, 2))
    reward = RewardModel(model, RewardConfig(attributes=ATTRIBUTES))
    preferences = torch.full((len(sequences), 2), 0.5)
    with tempfile.TemporaryDirectory() as states:
        files = StateFiles(Path(states, "head"))
        ours = seconds(
            lambda: collect_states(reward, sequences, preferences, plausible_k=K, pad_id=tokenizer.pad_id, files=files)
        )
    return plain, ours


def seconds(run: Callable[[], object]) -> float:
    """Return the processor time that a call takes, which other processes disturb less than the wall clock."""
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    """Print a line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tokenizer = ChatTokenizer(given.checkpoint)
    replies = make_replies(tokenizer, given.rows, given.tokens)
    for name, measure in (("gate", gate_reading), ("head", head_reading)):
        plain, ours = measure(given.checkpoint, tokenizer, replies)
        print(f"{name}: plain {plain:.1f} s, ours {ours:.1f} s, ratio {plain / ours:.2f}")


if __name__ == "__main__":
    main()
