"""A parity engine on top of the decoding loop: one token at a time, through the cache (torch-free)."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from prosocial.core.equal_lengths import equal_length_batches
from prosocial.steering.decoding.controls import ControlArrays, Steering, control_arrays
from prosocial.steering.decoding.engine import Decision, Engine, Stream

from .batches import MOST_ROWS
from .engines import Margins, ScoredReply, StepOutputs

MarginSource = Callable[[Sequence[int], int, ControlArrays | None], Margins]


class SteppingEngine:
    """Makes its decisions in the same steps as generation; the kind of engine that `measure_parity` compares.

    Args:
        engine: decoding engine of a bundle, a steered model or a plain model.
        name: name for the report, without paths.
        end_ids: ids of the tokens that end a reply.
        steering: steering of every request; None for the engine's own defaults.
        margins: computes the margins of the last n decisions on given tokens; None if they are not needed.
        batch_size: most rows in one batch; results do not depend on it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        end_ids: Sequence[int],
        steering: Steering | None = None,
        margins: MarginSource | None = None,
        batch_size: int = MOST_ROWS,
    ) -> None:
        self.name, self.batch_size = name, batch_size
        self._engine, self._end_ids, self._margins = engine, sorted(end_ids), margins
        self._controls: ControlArrays | None = None
        if steering is not None and engine.config is not None:
            self._controls = control_arrays(engine.config, [steering])

    def replies(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[ScoredReply]:
        """Return the greedy reply to each prompt, up to and including the end token, and its decisions."""
        scored: dict[int, ScoredReply] = {}
        for batch in equal_length_batches(map(len, prompts), lambda length: self.batch_size):
            scored |= zip(batch, self._run([prompts[index] for index in batch], max_new_tokens), strict=True)
        return [scored[index] for index in range(len(prompts))]

    def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
        """Return the decisions after the prompt and after each token of the reply."""
        stream = self._start([prompt], len(reply) + 1)
        record, first = _Record(stream.decision, len(reply) + 1), np.zeros(1, np.intp)
        for step, token in enumerate(reply):
            record.write(step, first, stream.decision, first)
            stream.step(np.array([token], dtype=np.int64))
        record.write(len(reply), first, stream.decision, first)
        return record.outputs(0, len(reply) + 1, self._lazy_margins([*prompt, *reply], len(reply) + 1))

    def _run(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[ScoredReply]:
        """Reply to prompts of equal length; finished rows are removed once more than half of the rows have finished."""
        stream = self._start(prompts, max_new_tokens)
        record = _Record(stream.decision, max_new_tokens)
        replies: list[list[int]] = [[] for _ in prompts]
        slots = live = np.arange(len(prompts))  # the row in each slot of the stream; the slots not yet finished
        for step in range(max_new_tokens):
            record.write(step, slots[live], stream.decision, live)
            tokens = np.asarray(stream.decision.logits.argmax(-1), dtype=np.int64)
            for slot in live:
                replies[slots[slot]].append(int(tokens[slot]))
            live = live[~np.isin(tokens[live], self._end_ids)]
            if not live.size or step + 1 == max_new_tokens:
                break
            if 2 * live.size < slots.size:
                stream.keep(live)
                slots, tokens, live = slots[live], tokens[live], np.arange(live.size)
            stream.step(tokens)
        return [self._scored(record, row, *pair) for row, pair in enumerate(zip(prompts, replies, strict=True))]

    def _scored(self, record: "_Record", row: int, prompt: Sequence[int], reply: list[int]) -> ScoredReply:
        margins = self._lazy_margins([*prompt, *reply[:-1]], len(reply))
        return ScoredReply(reply, record.outputs(row, len(reply), margins))

    def _lazy_margins(self, ids: list[int], n_last: int) -> Callable[[], Margins] | None:
        return None if self._margins is None else partial(self._margins, ids, n_last, self._controls)

    def _start(self, prompts: Sequence[Sequence[int]], n_new: int) -> Stream:
        ids = np.array([list(prompt) for prompt in prompts], dtype=np.int64)
        controls = None if self._controls is None else self._controls.rows([0] * len(ids))
        return self._engine.prefill(ids, controls, capacity=ids.shape[1] + n_new)


class _Record:
    """Buffers for the decisions of B rows at up to S steps."""

    def __init__(self, like: Decision, n_steps: int) -> None:
        n_rows = len(like.logits)
        self._logits = np.empty((n_rows, n_steps, like.logits.shape[1]), np.float32)
        self._risk = np.empty((n_rows, n_steps, like.risk.shape[1]), np.float32)
        self._size = np.empty((n_rows, n_steps), np.int64)

    def write(self, step: int, rows: NDArray[np.intp], decision: Decision, slots: NDArray[np.intp]) -> None:
        """Record the decisions in some slots of a stream as one step of the given rows."""
        self._logits[rows, step] = decision.logits[slots]
        self._risk[rows, step] = decision.risk[slots]
        self._size[rows, step] = decision.safe_set_size[slots]

    def outputs(self, row: int, n_steps: int, margins: Callable[[], Margins] | None) -> StepOutputs:
        """Return the first `n_steps` decisions of a row, as views."""
        return StepOutputs(
            self._logits[row, :n_steps], self._risk[row, :n_steps], self._size[row, :n_steps], margins=margins
        )
