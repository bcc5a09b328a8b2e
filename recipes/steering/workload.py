"""The work of each stage on a model that is not the lab's, in tokens, and its time at a measured speed (torch-free)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prosocial.core.chat import ChatTokenizer
from prosocial.core.files import read_json
from prosocial.core.row_files import read_rows
from prosocial.core.training_rows import pair_of, prompt_of, reply_of
from prosocial.editing.checkpoints import Checkpoint
from prosocial.evaluation.probes.probe import read_probes
from prosocial.steering.decoding.batch_size import replies_at_once

from ..workflow.stage import Stage
from .schema import FileData, Recipe

FLOAT32_BYTES = 4
ROWS_AT_ONCE = 16  # rows of the larger of the two measured draws

PROCESS_BYTES = 600_000_000  # Python, torch and transformers
DISK_BYTES_PER_SECOND = 400e6
SAMPLED_ROWS = 200  # rows of a file whose lengths are measured
PADDING = 1.15  # of batches of nearly equal length
EXPORT_SECONDS_PER_PARAMETER, EXPORT_SECONDS = 4.5e-7, 12.0  # Gemma 3 270M: two minutes on two cores
EXPORT_COPIES = 6  # of the float32 weights, while a graph is made and compared: 6.4 GB for Gemma 3 270M
TABLE_SECONDS_PER_NUMBER = 3e-9  # of an optimiser step on the gate's table
SMALL_STEP_SECONDS = 0.03  # of the gate and the head, beside the table
SCORABLE_PROBES = 324  # at most, of the report's part on preferences


@dataclass(frozen=True)
class Speed:
    """How fast a model computes in one dtype.

    Attributes:
        read: seconds per token that is read, with the logits of half of the tokens.
        train: seconds per token of a forward and backward pass.
        alone: seconds per token of a reply that is drawn alone.
        many: seconds per step of `ROWS_AT_ONCE` replies.
        train_bytes: memory per token of a batch in training, beside the weights.
    """

    read: float
    train: float
    alone: float
    many: float
    train_bytes: float

    def step(self, rows: float) -> float:
        """Return the seconds in which so many replies grow by one token."""
        return self.alone + max(0.0, self.many - self.alone) * max(0.0, rows - 1) / (ROWS_AT_ONCE - 1)

    def __str__(self) -> str:
        trained = f", {1 / self.train:,.0f} in training" if self.train else ""
        return (
            f"{1 / self.read:,.0f} tokens/s read{trained}, {1 / self.alone:,.1f} drawn alone, "
            f"{ROWS_AT_ONCE / self.many:,.0f} drawn {ROWS_AT_ONCE} at once"
        )


@dataclass(frozen=True)
class Lengths:
    """Lengths of the rows of one data file.

    Attributes:
        n: number of rows.
        prompt: mean number of tokens of a prompt.
        reply: mean number of tokens of a reply; 0 without replies.
        n_prompt_lengths: number of different prompt lengths among all rows, since prompts of one length run together.
    """

    n: int
    prompt: float
    reply: float
    n_prompt_lengths: float

    @property
    def tokens(self) -> float:
        """Mean number of tokens of a prompt with its reply."""
        return self.prompt + self.reply

    def some(self, n: int) -> "Lengths":
        """Return the lengths of the first `n` rows."""
        n = min(n, self.n)
        return replace(self, n=n, n_prompt_lengths=min(n, self.n_prompt_lengths))


@dataclass(frozen=True)
class Estimate:
    """Seconds and peak memory of a stage."""

    seconds: float
    memory_bytes: float


def with_measured(stages: list[Stage], estimates: Mapping[str, Estimate]) -> list[Stage]:
    """Return the stages with measured estimates of their time and memory."""
    known = ((stage, estimates.get(stage.name)) for stage in stages)
    return [
        stage
        if one is None
        else replace(stage, estimate_seconds=one.seconds, estimate_memory_bytes=round(one.memory_bytes))
        for stage, one in known
    ]


def data_lengths(data: FileData, tokenizer: ChatTokenizer) -> dict[str, Lengths]:
    """Return the lengths of every data file that is given, by part; a sample of each is encoded.

    Raises:
        InputError: a file or a row is malformed.
    """
    given = {part: path for part, path in data if path is not None}
    lengths = {part: _lengths(_texts(part, path), tokenizer) for part, path in given.items()}
    return {"gate_prompts": lengths["prompts"]} | lengths


def _texts(part: str, path: Path) -> list[tuple[Any, list[str]]]:
    """Return the conversation and the replies of every row."""
    if part in ("calibration", "probes"):
        return [(probe.messages, []) for probe in read_probes(path)]
    rows = [(row, f"{path} row {number}") for number, row in enumerate(read_rows(path), start=1)]
    match part:
        case "pairs":
            return [(messages, replies) for messages, *replies in (pair_of(row, where=where) for row, where in rows)]
        case "harmful" | "replies":
            return [(messages, [reply]) for messages, reply in (reply_of(row, where=where) for row, where in rows)]
    return [(prompt_of(row, where=where), []) for row, where in rows]


def _lengths(rows: Sequence[tuple[Any, list[str]]], tokenizer: ChatTokenizer) -> Lengths:
    sample = rows[:: max(1, len(rows) // SAMPLED_ROWS)][:SAMPLED_ROWS]
    prompts = [len(tokenizer.encode_chat(messages)) for messages, _ in sample]
    replies = [len(tokenizer.encode_text(reply)) + 1 for _, texts in sample for reply in texts]
    distinct = len(set(prompts))
    seen_once = sum(prompts.count(length) == 1 for length in set(prompts))
    unseen = seen_once * (len(rows) / len(sample) - 1) ** 0.5 if len(rows) > len(sample) else 0  # lengths are crowded
    return Lengths(len(rows), _mean(prompts), _mean(replies), distinct + unseen)


def _mean(numbers: Iterable[int]) -> float:
    values = list(numbers)
    return sum(values) / len(values) if values else 0.0


@dataclass(frozen=True)
class Workload:
    """What the stages of a recipe on a given model have to do.

    Attributes:
        recipe: the recipe; its data are files.
        checkpoint: the base checkpoint.
        lengths: lengths of the data files.
        speed: speed in the recipe's dtype.
        exact: speed in float32, in which threshold, parity and report are measured.
    """

    recipe: Recipe
    checkpoint: Checkpoint
    lengths: Mapping[str, Lengths]
    speed: Speed
    exact: Speed

    def estimates(self) -> dict[str, Estimate]:
        """Return time and memory of every stage, by name."""
        first = ("data", "harmful", "vector", "edit", "pairs", "replies", "reward", "gate", "head")
        last = ("threshold", "steered", "bundle", "parity", "report")
        return {name: getattr(self, f"_{name}")() for name in (*first, *last)}

    @property
    def _weights(self) -> float:
        return self.checkpoint.n_parameters * (FLOAT32_BYTES if self.recipe.dtype == "float32" else 2)

    @property
    def _weights32(self) -> float:
        return self.checkpoint.n_parameters * FLOAT32_BYTES

    def _model_memory(self, batch_tokens: float = 0.0) -> float:
        return PROCESS_BYTES + self._weights + batch_tokens * self.speed.train_bytes

    def _draw(self, rows: Lengths, new_tokens: int, speed: Speed) -> float:
        """Return the seconds of drawing one reply per row, as long as is allowed."""
        most = replies_at_once(
            read_json(self.checkpoint.folder / "config.json", finite=False), round(rows.prompt) + new_tokens
        )
        at_once = min(most, max(1.0, rows.n / max(1.0, rows.n_prompt_lengths)))
        return rows.n * rows.prompt * speed.read + rows.n / at_once * new_tokens * speed.step(at_once)

    def _data(self) -> Estimate:
        return Estimate(1 + sum(rows.n for rows in self.lengths.values()) * 5e-4, PROCESS_BYTES / 4)

    def _harmful(self) -> Estimate:
        how, rows = self.recipe.harmful, self.lengths["harmful"]
        batch = how.batch_size * min(rows.tokens, how.max_tokens) * PADDING
        return Estimate(how.steps * batch * self.speed.train, self._model_memory(batch))

    def _vector(self) -> Estimate:
        return Estimate(1 + self.checkpoint.size_bytes / DISK_BYTES_PER_SECOND, PROCESS_BYTES)

    def _edit(self) -> Estimate:
        return Estimate(1 + 2 * self.checkpoint.size_bytes / DISK_BYTES_PER_SECOND, PROCESS_BYTES)

    def _pairs(self) -> Estimate:
        if "pairs" in self.lengths:
            return Estimate(1, PROCESS_BYTES / 4)
        rows, how = self.lengths["prompts"].some(self.recipe.pairs.count), self.recipe.pairs
        return Estimate(2 * self._draw(rows, how.max_new_tokens, self.speed), self._model_memory())

    def _replies(self) -> Estimate:
        if "replies" in self.lengths:
            return Estimate(1, PROCESS_BYTES / 4)
        rows, how = self.lengths["gate_prompts"].some(self.recipe.replies.count), self.recipe.replies
        return Estimate(self._draw(rows, how.max_new_tokens, self.speed), self._model_memory())

    def _pair_rows(self) -> Lengths:
        drawn = self.lengths["prompts"].some(self.recipe.pairs.count)
        return self.lengths.get("pairs", replace(drawn, reply=self.recipe.pairs.max_new_tokens))

    def _reply_rows(self) -> Lengths:
        drawn = self.lengths["gate_prompts"].some(self.recipe.replies.count)
        return self.lengths.get("replies", replace(drawn, reply=self.recipe.replies.max_new_tokens))

    def _reward(self) -> Estimate:
        how, rows = self.recipe.reward, self._pair_rows()
        pair = 2 * min(rows.tokens, how.max_tokens) * PADDING
        trained = how.steps * how.batch_size * pair * self.speed.train
        held_out = 0.1 * rows.n * pair * (len(self.recipe.attributes) + 1) * self.speed.read
        micro = min(how.batch_size, how.micro_batch_size or how.batch_size)
        return Estimate(trained + held_out, self._model_memory(micro * pair))

    def _gate(self) -> Estimate:
        how, rows = self.recipe.gate, self._reply_rows()
        read = 2 * rows.n * rows.tokens * self.speed.read  # by the edited and by the harmful model
        n_steps = how.steps
        if how.on_policy.count:
            drawn = self.lengths["gate_prompts"].some(how.on_policy.count)
            new = self.recipe.replies.max_new_tokens
            read += self._draw(drawn, new, self.speed) + 2 * drawn.n * (drawn.prompt + new) * self.speed.read
            n_steps += how.steps // 2
        step = SMALL_STEP_SECONDS + self._table(how.rank) * TABLE_SECONDS_PER_NUMBER
        return Estimate(read + n_steps * step, self._model_memory() + 4 * FLOAT32_BYTES * self._table(how.rank))

    def _table(self, rank: int) -> float:
        config = read_json(self.checkpoint.folder / "config.json", finite=False)
        return float({**config, **config.get("text_config", {})}.get("vocab_size", 0) * rank)

    def _head(self) -> Estimate:
        how, rows = self.recipe.head, self._pair_rows()
        tokens = min(rows.tokens, how.max_tokens)
        taught = min(how.sequences, 2 * rows.n) * tokens * (how.passes + 1) * self.speed.read
        own = self.lengths["prompts"].some(how.on_policy)
        drawn = 0.0
        if how.on_policy:
            new = self.recipe.pairs.max_new_tokens
            drawn = self._draw(own, new, self.speed) + 2 * own.n * (own.prompt + new) * self.speed.read
        held_out = 0.2 * rows.n * tokens * 2 * len(self.recipe.attributes) * self.speed.read
        return Estimate(taught + drawn + held_out + 1.5 * how.steps * SMALL_STEP_SECONDS, self._model_memory())

    def _threshold(self) -> Estimate:
        calibration, rows = self.recipe.calibration, self.lengths["calibration"]
        times = 1 if calibration.threshold is not None else 1 + len(calibration.candidates) / 2
        seconds = times * self._draw(rows, self.recipe.decoding.max_new_tokens, self.exact)
        return Estimate(0.5 if calibration.threshold is not None else seconds, PROCESS_BYTES + self._weights32)

    def _steered(self) -> Estimate:
        return Estimate(1 + self.checkpoint.size_bytes / DISK_BYTES_PER_SECOND, PROCESS_BYTES)

    def _bundle(self) -> Estimate:
        seconds = EXPORT_SECONDS + EXPORT_SECONDS_PER_PARAMETER * self.checkpoint.n_parameters
        return Estimate(seconds, PROCESS_BYTES + EXPORT_COPIES * self._weights32)

    def _parity(self) -> Estimate:
        probes = self.lengths["probes"].some(self.recipe.verify.parity_probes or self.lengths["probes"].n)
        seconds = 3 * self._draw(probes, self.recipe.decoding.max_new_tokens, self.exact)
        return Estimate(10 + seconds, 2 * (PROCESS_BYTES + self._weights32))

    def _report(self) -> Estimate:
        probes, new = self.lengths["probes"], self.recipe.decoding.max_new_tokens
        preferences = (len(self.recipe.attributes) + 1) * self._draw(probes.some(SCORABLE_PROBES), new, self.exact)
        return Estimate(
            3 * self._draw(probes, new, self.exact) + preferences + probes.n * (probes.prompt + new) * self.exact.read,
            PROCESS_BYTES + 2 * self._weights32,
        )
