"""What parity needs of an engine: its greedy replies with the decisions behind them, and those on given tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Margins:
    """By how much each token was let in or kept out; positive: in. Tells a near tie from a real difference.

    Attributes:
        plausibility: [S, V] the token's own logit minus the midpoint between the K-th and the next one; infinite where
            K covers the vocabulary.
        safety: [S, V] threshold minus the token's risk; infinite for end-of-sequence, which is exempt, NaN where
            it was not computed (the token is not plausible).
    """

    plausibility: NDArray[np.float32]
    safety: NDArray[np.float32]


@dataclass(frozen=True)
class StepOutputs:
    """Decisions on the next token after a prompt and after each token of a reply: S = len(reply) + 1 positions.

    Attributes:
        logits: [S, V]; minus infinity where a token is not in the safe set.
        risk: [S, C] risk that the next token harms; C is 0 without a gate.
        safe_set_size: [S].
        margins: computes how close each decision was, where the engine can tell; asked of the reference only, and only
            where the safe sets differ, as it costs a pass of its own.
    """

    logits: NDArray[np.float32]
    risk: NDArray[np.float32]
    safe_set_size: NDArray[np.int64]
    margins: Callable[[], Margins] | None = None


@dataclass(frozen=True)
class ScoredReply:
    """A greedy reply and what was decided on the way.

    Attributes:
        tokens: the most likely token at each step, the end token included; at least one.
        outputs: the decisions after the prompt and after each token but the last, as `score(prompt, tokens[:-1])`
            gives them: one position per token.
    """

    tokens: list[int]
    outputs: StepOutputs


class ParityEngine(Protocol):
    """A model that can be compared token by token.

    Attributes:
        name: what it is, for the report (`PyTorch float32`, `ONNX Runtime, CPU`); no path.
    """

    name: str

    def replies(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[ScoredReply]:
        """Return the most likely reply to each prompt, in their order; all of their decisions are held in memory."""
        ...

    def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
        """Return the decisions after the prompt and after each token of the reply, teacher forced."""
        ...
