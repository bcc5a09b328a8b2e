"""Measures the speed of the reward model's training, compared with a plain loop in torch on the same pairs.

    python benchmarks/tuning_speed_reward.py MODEL [--batch 4] [--tokens 200] [--steps 4] [--runs 3] [--cpu-time]

Both train in bfloat16. The plain loop trains a LoRA of the same rank on the same layers with the same loss at one
preference, from the logits of the replies' tokens; its adapter is bfloat16 too. The two take turns, and a figure is the
median over the runs, each the median time between two of its updates. Exits with 1 below FLOOR of the loop's speed.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, logsigmoid

from prosocial.core.batches import EncodedReply
from prosocial.editing.checkpoints import load_model
from prosocial.training.reward import Attribute, EncodedPairs, RewardConfig, RewardModel, RewardTraining, train_reward

FLOOR = 0.8
NAMES = ("empathy", "helpfulness")
RATE, BETA, ANCHOR = 5e-3, 0.2, 0.5
Times = Callable[[], float]  # runs updates and returns seconds per update


def reward_times(folder: Path, given: argparse.Namespace) -> tuple[Times, Times]:
    """Return the training of the reward model and its plain loop; a pair's replies are half of its tokens."""
    vocabulary, draw = load_model(folder).config.get_text_config().vocab_size, torch.Generator().manual_seed(0)
    shape = (2 * given.batch * given.steps, given.tokens)
    ids = torch.randint(5, vocabulary, shape, generator=draw)
    half, n = given.tokens // 2, len(ids) // 2
    sequences = [EncodedReply(tuple(row[:half]), tuple(row[half:])) for row in ids.tolist()]
    pairs = EncodedPairs(sequences, torch.randint(0, 2, (n, len(NAMES)), generator=draw).float() * 2 - 1)
    config = RewardConfig(NAMES)

    def ours() -> float:
        reward = RewardModel(load_model(folder, dtype=torch.bfloat16), config)
        training = RewardTraining(steps=given.steps, batch_size=given.batch, learning_rate=RATE, anchor_weight=ANCHOR)
        known = [Attribute(name, "", beta=BETA) for name in NAMES]
        return timed(
            lambda on_step: train_reward(
                reward, pairs, attributes=known, training=training, pad_id=0, seed=0, on_step=on_step
            ),
            given,
        )

    def plain() -> float:
        lora = LoraConfig(r=config.rank + config.preference_rank, lora_alpha=8, target_modules=config.targets)
        inner: Any = load_model(folder, dtype=torch.bfloat16)
        model: Any = get_peft_model(inner, lora, autocast_adapter_dtype=False)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=RATE)

        def updates(on_step: Callable[[], None]) -> None:
            for at in torch.arange(n).split(given.batch):
                rows = ids[torch.cat([at, at + n])]
                hidden = inner.base_model(input_ids=rows, attention_mask=torch.ones_like(rows)).last_hidden_state
                logits = inner.get_output_embeddings()(hidden[:, half - 1 : -1]).float()
                lost = cross_entropy(logits.flatten(0, 1), rows[:, half:].flatten(), reduction="none")
                rewards = -lost.view(len(rows), -1).sum(1)
                first, second = rewards.chunk(2)
                margins = BETA * pairs.signs[at] * (first - second)[:, None]
                loss = -logsigmoid(margins).mean() - ANCHOR * rewards.sum() / len(lost)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                on_step()

        return timed(updates, given)

    return ours, plain


def timed(updates: Callable[[Callable[[], None]], object], given: argparse.Namespace) -> float:
    """Return the median time between two updates of a training that calls `on_step` after each."""
    ends: list[float] = []
    clock = time.process_time if given.cpu_time else time.perf_counter
    updates(lambda: ends.append(clock()))
    return statistics.median(later - earlier for earlier, later in pairwise(ends))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a checkpoint")
    parser.add_argument("--batch", type=int, default=4, help="pairs of an update")
    parser.add_argument("--tokens", type=int, default=200, help="of a prompt with its reply, which is half of it")
    parser.add_argument("--steps", type=int, default=4, help="updates of a run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="of the process, where other work shares the cores")
    given = parser.parse_args()
    ways = reward_times(given.model, given)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(given.runs):
        for times, way in zip(seconds, ways, strict=True):
            times.append(way())
    ours, plain = map(statistics.median, seconds)
    print(f"{given.model}, {given.batch} pairs of {given.tokens} tokens, bfloat16, s per update")
    print(f"{'reward':18} {ours:7.3f}  plain {plain:7.3f}  {plain / ours:5.2f} of the plain loop's speed")
    return int(plain / ours < FLOOR)


if __name__ == "__main__":
    sys.exit(main())
