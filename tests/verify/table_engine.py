"""An engine that is a table, so that a test can move any logit or risk by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prosocial.verify.parity.divergence import Ties
from prosocial.verify.parity.engines import Margins, ScoredReply, StepOutputs

V, C, K, TAU, END = 40, 3, 12, 0.5, 0
TIES = Ties(logit=2e-3, risk=1e-3)
INF = float("inf")
PROMPTS = {"a": [3, 4], "b": [7], "c": [9, 1, 2]}


@dataclass
class TableEngine:
    """An engine whose logits and risks hang on the last token only; `nudge` and `risk_nudge` move them."""

    name: str = "table"
    seed: int = 0
    nudge: NDArray[np.float64] = field(default_factory=lambda: np.zeros((V, V)))
    risk_nudge: NDArray[np.float64] = field(default_factory=lambda: np.zeros((V, V)))
    n_margins: int = 0
    batches: list[int] = field(default_factory=list)

    def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
        tokens = [prompt[-1], *reply]
        rng = np.random.default_rng(self.seed)
        z0 = (rng.normal(0, 2, (V, V)) + self.nudge)[tokens]
        risks = np.clip(rng.random((V, V)) + self.risk_nudge, 0, 1)[tokens]
        order = -np.sort(-z0, axis=1)
        plausibility = z0 - (order[:, K - 1 : K] + order[:, K : K + 1]) / 2
        safety = TAU - risks
        safety[:, END] = np.inf
        safe = (plausibility > 0) & (safety >= 0)
        size = safe[:, 1:].sum(axis=1)
        logits = np.where(safe, z0, -np.inf)
        logits[size == 0] = -np.inf
        logits[size == 0, END] = 0.0
        prefix = risks[:, :C]
        return StepOutputs(
            logits.astype(np.float32),
            prefix.astype(np.float32),
            size.astype(np.int64),
            lambda: self._margins(plausibility, safety),
        )

    def _margins(self, plausibility: NDArray[np.float64], safety: NDArray[np.float64]) -> Margins:
        self.n_margins += 1
        return Margins(plausibility.astype(np.float32), safety.astype(np.float32))

    def replies(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[ScoredReply]:
        self.batches.append(len(prompts))
        return [self._reply(prompt, max_new_tokens) for prompt in prompts]

    def _reply(self, prompt: Sequence[int], max_new_tokens: int) -> ScoredReply:
        reply: list[int] = []
        while len(reply) < max_new_tokens and (not reply or reply[-1] != END):
            outputs = self.score(prompt, reply)
            reply.append(int(outputs.logits[-1].argmax()))
        return ScoredReply(reply, outputs)


def tied(gap: float) -> tuple[TableEngine, TableEngine]:
    """Two engines that disagree on the first token of prompt "b", where the reference's first two are `gap` apart."""
    base = TableEngine()
    logits = base.score([7], []).logits[0].astype(np.float64)
    second, first = (int(token) for token in np.argsort(logits)[-2:])
    nudge = np.zeros((V, V))
    nudge[7, second] = logits[first] - logits[second] - gap
    other = nudge.copy()
    other[7, second] += 2 * gap
    return TableEngine(nudge=nudge), TableEngine(nudge=other)
