"""The interface of an engine for parity: greedy replies with their decisions, and decisions on given tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Margins:
    """How far each token is from the limits of the safe set, positive inside; tells near ties from real differences.

    Attributes:
        plausibility: [S, V] the token's logit minus the midpoint of the K-th and (K+1)-th largest; infinite where K
            covers the vocabulary.
        safety: [S, V] threshold minus the token's risk; infinite for end-of-sequence tokens, which are exempt; NaN
            where the risk was not computed because the token is not plausible.
    """

    plausibility: NDArray[np.float32]
    safety: NDArray[np.float32]


@dataclass(frozen=True)
class StepOutputs:
    """Decisions on the next token after a prompt and after each token of a reply: S = len(reply) + 1 positions.

    Attributes:
        logits: [S, V]; minus infinity where a token is not in the safe set.
        risk: [S, C] risk that the next token harms; C is 0 without a gate.
        safe_set_size: [S] number of tokens in the safe set.
        margins: computes the margins of these decisions; None if the engine cannot. It costs one more forward pass, so
            it is called only where the margins are needed.
    """

    logits: NDArray[np.float32]
    risk: NDArray[np.float32]
    safe_set_size: NDArray[np.int64]
    margins: Callable[[], Margins] | None = None


@dataclass(frozen=True)
class ScoredReply:
    """A greedy reply and the decisions behind its tokens.

    Attributes:
        tokens: the most likely token at each step, including the end token; at least one.
        outputs: the decisions after the prompt and after each token except the last, equal to
            `score(prompt, tokens[:-1])`: one position per token.
    """

    tokens: list[int]
    outputs: StepOutputs


class ParityEngine(Protocol):
    """A model that can be compared token by token.

    Attributes:
        name: description for the report (`PyTorch float32`, `ONNX Runtime, CPU`), without paths.
    """

    name: str

    def replies(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[ScoredReply]:
        """Return the greedy reply to each prompt, in order; the decisions of all replies are held in memory."""
        ...

    def score(self, prompt: Sequence[int], reply: Sequence[int]) -> StepOutputs:
        """Return the decisions after the prompt and after each token of the reply, teacher forced."""
        ...
