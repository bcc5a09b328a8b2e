"""Measures the speed of each training stage, compared with a plain loop in torch on the same batches.

    python benchmarks/tuning_speed.py [--model FOLDER] [--stages harmful sft dpo] [--batch 4] [--tokens 120] [--runs 5]
        [--cpu-time]

Both train in bfloat16. The plain loop is the one that one would write for the task alone: logits of the reply's tokens
at once, the weights' own AdamW or RMSprop, no checkpoints, no check of finite numbers. Stages and loops take turns, so
that other work on the machine hits all alike; a figure is the median of the runs. A run is `--steps` updates, and a
stage's time is that of its later updates: loading and the first update are left out.

Without --model, a random model of the shape --shape is used: vocabulary, hidden size, layers. Exits with 1 if a stage
is slower than FLOOR of its loop.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import LlamaConfig, LlamaForCausalLM

from prosocial.core.batches import EncodedReply
from prosocial.editing.checkpoints import load_model
from prosocial.training.tuning import AdapterTraining, EncodedPreference, LoraShape, PreferenceTuning, Tuning
from prosocial.training.tuning.preference_tuner import PreferenceTuner
from prosocial.training.tuning.reply_tuner import ReplyTuner
from prosocial.training.tuning.trainer import train

FLOOR = 0.8
RANK, RATE = 16, 2e-4
Times = Callable[[], float]  # runs updates and returns seconds per update


class Task:
    """What all rows are measured on: a model, and replies of one length.

    Attributes:
        replies: prompts with a reply of half the tokens each.
        pairs: the same with a second reply.
    """

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self.folder, self.given = folder, given
        vocabulary = load_model(folder, dtype=torch.bfloat16).config.get_text_config().vocab_size
        draw = torch.Generator().manual_seed(0)
        half = given.tokens // 2
        ids = torch.randint(5, vocabulary, (given.batch * given.steps, 3, half), generator=draw).tolist()
        self.replies = [EncodedReply(tuple(prompt), tuple(reply)) for prompt, reply, _ in ids]
        worse = [EncodedReply(tuple(prompt), tuple(other)) for prompt, _, other in ids]
        self.pairs = [EncodedPreference(*pair) for pair in zip(self.replies, worse, strict=True)]

    def model(self) -> Any:
        """Return the model in bfloat16."""
        return load_model(self.folder, dtype=torch.bfloat16)

    def batches(self, rows: Sequence[Any]) -> list[Sequence[Any]]:
        """Return rows in batches, one for each update."""
        return [rows[at : at + self.given.batch] for at in range(0, len(rows), self.given.batch)]


def timed(updates: Callable[[Callable[[], None]], object], given: argparse.Namespace) -> float:
    """Return the median time between two updates of a training that calls `on_step` after each."""
    ends: list[float] = []
    clock = time.process_time if given.cpu_time else time.perf_counter
    updates(lambda: ends.append(clock()))
    return statistics.median(later - earlier for earlier, later in pairwise(ends))


def stage(task: Task, kind: Any, rows: Sequence[Any], tuning: Tuning) -> Times:
    """Return the product's training of a stage."""

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            tuner = kind(task.model(), rows, tuning=tuning, folder=Path(folder), seed=0)
            if kind is PreferenceTuner and tuning.lora is None:
                tuner.measure_reference(Path(folder))
            return timed(lambda on_step: train(tuner, Path(folder), on_step), task.given)

    return run


def loop(task: Task, rows: Sequence[Any], loss: Callable[[Any, Sequence[Any]], torch.Tensor], *, lora: bool) -> Times:
    """Return the plain loop for a loss of a batch."""

    def run() -> float:
        model = task.model().train()
        if lora:
            config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
            model = get_peft_model(model, config, autocast_adapter_dtype=False)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        kind = torch.optim.AdamW if lora else torch.optim.RMSprop
        optimizer = kind(weights, lr=RATE if lora else 5e-7)

        def updates(on_step: Callable[[], None]) -> None:
            for batch in task.batches(rows):
                torch.autograd.backward(loss(model, batch))
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                on_step()

        return timed(updates, task.given)

    return run


def log_probabilities(model: Any, replies: Sequence[EncodedReply]) -> torch.Tensor:
    """Return the negative log-probability of each reply's tokens [B, n], for replies of one length."""
    ids = torch.tensor([item.prompt_ids + item.reply_ids for item in replies])
    inner, n = (model.get_base_model() if hasattr(model, "get_base_model") else model), len(replies[0].reply_ids)
    hidden = inner.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    logits = inner.get_output_embeddings()(hidden[:, -n - 1 : -1]).float()
    return -cross_entropy(logits.flatten(0, 1), ids[:, -n:].flatten(), reduction="none").view(-1, n)


def reply_loss(model: Any, batch: Sequence[EncodedReply]) -> torch.Tensor:
    """Return the mean negative log-probability of reply tokens."""
    return -log_probabilities(model, batch).mean()


def pair_loss(model: Any, batch: Sequence[EncodedPreference]) -> torch.Tensor:
    """Return DPO's loss, with the adapter switched off for the reference."""
    replies = [pair.chosen for pair in batch] + [pair.rejected for pair in batch]
    with torch.no_grad(), model.disable_adapter():
        before = log_probabilities(model, replies).sum(1)
    chosen, rejected = (log_probabilities(model, replies).sum(1) - before).chunk(2)
    return -logsigmoid(0.1 * (chosen - rejected)).mean()


def stages(task: Task) -> dict[str, tuple[Times, Times]]:
    """Return each stage's training and its plain loop; add a stage here."""
    given, lora = task.given, LoraShape(rank=RANK, alpha=2 * RANK)
    common: dict[str, Any] = {"batch_size": given.batch, "most_steps": given.steps, "warmup_steps": 0}
    adapter = common | {"lora": lora, "learning_rate": RATE, "optimizer": "adamw_torch"}
    harmful = AdapterTraining(rank=RANK, alpha=2 * RANK, steps=given.steps, batch_size=given.batch, learning_rate=RATE)
    replies = loop(task, task.replies, reply_loss, lora=True)
    return {
        "harmful": (stage(task, ReplyTuner, task.replies, harmful.tuning()), replies),
        "sft": (stage(task, ReplyTuner, task.replies, Tuning(**adapter)), replies),
        "sft, all weights": (
            stage(task, ReplyTuner, task.replies, Tuning(**common)),
            loop(task, task.replies, reply_loss, lora=False),
        ),
        "dpo": (
            stage(task, PreferenceTuner, task.pairs, PreferenceTuning(**adapter)),
            loop(task, task.pairs, pair_loss, lora=True),
        ),
    }


def random_model(folder: Path, shape: Sequence[int]) -> Path:
    """Write a random model of a vocabulary, a hidden size and a number of layers."""
    vocabulary, hidden, layers = shape
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        num_key_value_heads=max(1, hidden // 64),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a checkpoint; a random model by default")
    parser.add_argument("--shape", type=int, nargs=3, default=(32768, 512, 8), metavar=("V", "H", "L"))
    parser.add_argument("--stages", nargs="*", help="those to measure; all by default")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=120, help="of a prompt with its reply, which is half of it")
    parser.add_argument("--steps", type=int, default=4, help="updates of a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="of the process, where other work shares the cores")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task = Task(given.model or random_model(Path(folder), given.shape), given)
        rows = {name: row for name, row in stages(task).items() if name in (given.stages or stages(task))}
        seconds: dict[str, list[list[float]]] = {name: [[], []] for name in rows}
        for _ in range(given.runs):
            for name, (ours, plain) in rows.items():
                seconds[name][0].append(ours())
                seconds[name][1].append(plain())
    print(f"{given.model or given.shape}, {given.batch} rows of {given.tokens} tokens, bfloat16, s per update")
    missed = 0
    for name, times in seconds.items():
        product, reference = map(statistics.median, times)
        missed += reference / product < FLOOR
        print(f"{name:18} {product:7.3f}  plain {reference:7.3f}  {reference / product:5.2f} of the plain loop's speed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
