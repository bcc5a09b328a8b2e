"""An engine as parity compares it: greedy replies through the decoding loop, with every decision (torch-free)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.steering.decoding.controls import ControlArrays, Steering, control_arrays
from prosocial.steering.decoding.draft import ReplyDraft
from prosocial.steering.decoding.engine import Decision, Engine
from prosocial.steering.decoding.loop import Loop
from prosocial.steering.decoding.sampling import Sampler, Sampling

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
        self._engine, self._end_ids, self._margins = engine, tuple(sorted(end_ids)), margins
        self._controls: ControlArrays | None = None
        if steering is not None and engine.config is not None:
            self._controls = control_arrays(engine.config, [steering])

    def replies(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[ScoredReply]:
        """Return the greedy reply to each prompt, up to and including the end token, and its decisions."""
        records = [_Record(max_new_tokens) for _ in prompts]
        controls = None if self._controls is None else self._controls.rows([0] * len(prompts))
        loop = Loop(
            self._engine,
            controls,
            Sampler(Sampling(), [""] * len(prompts)),
            observer=lambda row, decision, at: records[row].add(decision, at),
        )
        drafts = [
            ReplyDraft(row, list(prompt), max_new_tokens, self._end_ids, rollback_tokens=0, max_retries=0)
            for row, prompt in enumerate(prompts)
        ]
        loop.run(drafts, self.batch_size)
        return [self._scored(*pair) for pair in zip(prompts, records, strict=True)]

    def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
        """Return the decisions after the prompt and after each token of the reply."""
        ids = np.array([list(prompt)], dtype=np.int64)
        stream = self._engine.prefill(ids, self._controls, capacity=len(prompt) + len(reply) + 1)
        record = _Record(len(reply) + 1)
        record.add(stream.decision, 0)
        for token in reply:
            stream.step(np.array([token], dtype=np.int64))
            record.add(stream.decision, 0)
        return record.outputs(self._lazy_margins([*prompt, *reply], len(reply) + 1))

    def _scored(self, prompt: Sequence[int], record: "_Record") -> ScoredReply:
        """Return what was recorded; where nothing was safe the most likely token is an end token, and stands there."""
        reply = record.most_likely()
        margins = self._lazy_margins([*prompt, *reply[:-1]], len(reply))
        return ScoredReply(reply, record.outputs(margins))

    def _lazy_margins(self, ids: list[int], n_last: int) -> Callable[[], Margins] | None:
        return None if self._margins is None else partial(self._margins, ids, n_last, self._controls)


class _Record:
    """The decisions on one row, step by step; memory that is never written to is never touched."""

    def __init__(self, most_steps: int) -> None:
        self._most_steps, self._n_steps = most_steps, 0
        self._parts: tuple[NDArray[Any], ...] = ()

    def add(self, decision: Decision, at: int) -> None:
        """Record what row `at` of a decision says as the next step."""
        values = decision.logits[at], decision.risk[at], decision.safe_set_size[at]
        if not self._parts:
            self._parts = tuple(np.empty((self._most_steps, *value.shape), value.dtype) for value in values)
        for part, value in zip(self._parts, values, strict=True):
            part[self._n_steps] = value
        self._n_steps += 1

    def most_likely(self) -> list[int]:
        """Return the most likely token at each step."""
        return [int(token) for token in self._parts[0][: self._n_steps].argmax(-1)]

    def outputs(self, margins: Callable[[], Margins] | None) -> StepOutputs:
        """Return the recorded steps, as views."""
        logits, risk, size = (part[: self._n_steps] for part in self._parts)
        return StepOutputs(logits, risk, size, margins=margins)
