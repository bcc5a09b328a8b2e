"""An engine of the decoding loop, as parity needs it: one token at a time, through its cache (torch-free)."""

from collections.abc import Callable, Sequence

import numpy as np

from prosocial.export.engine import Engine, Stream
from prosocial.export.steering import ControlArrays, Steering, control_arrays

from .engines import Margins, StepOutputs

MarginSource = Callable[[Sequence[int], int, ControlArrays | None], Margins]


class SteppingEngine:
    """Decides through the same steps as generation does; what `measure_parity` compares.

    Args:
        engine: of a bundle, a steered model or an ordinary one.
        name: for the report; no path.
        end_ids: tokens that end a reply.
        steering: what each request asks for; None leaves it to the engine's own defaults.
        margins: computes the margins of the last n decisions on given tokens; for the reference.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        end_ids: Sequence[int],
        steering: Steering | None = None,
        margins: MarginSource | None = None,
    ) -> None:
        self.name = name
        self._engine, self._end_ids, self._margins = engine, frozenset(end_ids), margins
        self._controls: ControlArrays | None = None
        if steering is not None and engine.config is not None:
            self._controls = control_arrays(engine.config, [steering])

    def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
        """Return the decisions after the prompt and after each token of the reply."""
        stream = self._start(prompt, len(reply) + 1)
        decisions = [stream.decision]
        for token in reply:
            stream.step(np.array([token], dtype=np.int64))
            decisions.append(stream.decision)
        ids = [*prompt, *reply]
        return StepOutputs(
            logits=np.stack([decision.logits[0] for decision in decisions]),
            risk=np.stack([decision.risk[0] for decision in decisions]),
            safe_set_size=np.array([decision.safe_set_size[0] for decision in decisions], dtype=np.int64),
            margins=None if self._margins is None else self._margins(ids, len(decisions), self._controls),
        )

    def greedy(self, prompt: Sequence[int], *, max_new_tokens: int) -> list[int]:
        """Return the most likely tokens, up to and with the end token."""
        stream = self._start(prompt, max_new_tokens)
        reply = [int(stream.decision.logits[0].argmax())]
        while reply[-1] not in self._end_ids and len(reply) < max_new_tokens:
            stream.step(np.array([reply[-1]], dtype=np.int64))
            reply.append(int(stream.decision.logits[0].argmax()))
        return reply

    def _start(self, prompt: Sequence[int], n_new: int) -> Stream:
        ids = np.array([list(prompt)], dtype=np.int64)
        return self._engine.prefill(ids, self._controls, capacity=len(prompt) + n_new)
