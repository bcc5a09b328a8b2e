"""Choice of the next token from logits: greedy, or sampled from the safe set (torch-free).

Sampling settings only remove tokens or change finite logits: a token that the rule set to minus infinity is never
chosen. Each row is processed by itself, over its finite logits only, so that results do not depend on the batch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from prosocial.core.noise import GumbelNoise
from prosocial.core.settings import StrictSettings, Temperature

Floats = NDArray[np.float32]


class Sampling(StrictSettings):
    """How the next token is chosen; the defaults decode greedily.

    Applied in this order: repetition penalty, temperature, top-k, top-p (arXiv 1904.09751), min-p (arXiv 2407.01082).
    The penalty divides positive logits and multiplies negative logits of tokens that occur in the prompt or the reply
    (arXiv 1909.05858), also in greedy decoding. Command-line options take their help from the descriptions.
    """

    temperature: Temperature = Field(default=0.0, description="Sampling temperature; 0 decodes greedily.")
    top_k: int = Field(default=0, ge=0, description="Sample from the k most likely tokens; 0 for all.")
    top_p: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Sample from the most likely tokens of this total probability.",
    )
    min_p: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Keep tokens with at least this fraction of the highest probability.",
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0.0, le=10.0, description="Above 1, tokens that already occurred become less likely."
    )
    seed: int = Field(default=0, description="Random seed of the sampling.")


class Sampler:
    """Chooses the next tokens of several conversations.

    Args:
        sampling: the settings.
        row_keys: one text per conversation that seeds its noise, together with the seed of `sampling`.
    """

    def __init__(self, sampling: Sampling, row_keys: Sequence[str]) -> None:
        self.sampling = sampling
        self._noise = GumbelNoise(sampling.seed, row_keys) if sampling.temperature else None

    @property
    def reads_history(self) -> bool:
        """Whether earlier tokens affect the choice."""
        return self.sampling.repetition_penalty != 1.0

    def choose(
        self, logits: Floats, rows: Sequence[int], histories: Sequence[Sequence[int]] | None = None
    ) -> NDArray[np.intp]:
        """Return the next tokens [B] of some conversations.

        Args:
            logits: [B, V], minus infinity for tokens that must not be chosen, at least one finite value per row.
            rows: [B], indices into the row keys.
            histories: B lists of earlier tokens; needed only where `reads_history`.
        """
        if not len(rows):
            return np.zeros(0, dtype=np.intp)
        if self._noise is None and not self.reads_history:
            return np.asarray(logits.argmax(-1), dtype=np.intp)
        seen = [()] * len(rows) if histories is None else histories
        chosen = [self._choose(*each) for each in zip(logits, rows, seen, strict=True)]
        return np.array(chosen, dtype=np.intp)

    def _choose(self, logits: Floats, row: int, history: Sequence[int]) -> int:
        tokens, values = open_logits(logits, self.sampling, history)
        if self._noise is not None:
            values = values + self._noise.draw_at(len(logits), row, tokens)
        return int(tokens[values.argmax()])


def shape_logits(logits: Floats, sampling: Sampling, history: Sequence[int] = ()) -> Floats:
    """Return one row's logits [V] after the sampling settings; at least one stays finite, minus infinity stays.

    Examples:
        >>> shape_logits(np.array([0.0, 2.0, -np.inf], np.float32), Sampling(temperature=0.5, top_k=1)).tolist()
        [-inf, 4.0, -inf]
    """
    tokens, values = open_logits(logits, sampling, history)
    shaped = np.full_like(logits, -np.inf)
    shaped[tokens] = values
    return shaped


def open_logits(logits: Floats, sampling: Sampling, history: Sequence[int] = ()) -> tuple[NDArray[np.intp], Floats]:
    """Return the open tokens of one row's logits [V], in ascending order, and their logits after the settings.

    Examples:
        >>> tokens, values = open_logits(np.array([0.0, 2.0, -np.inf], np.float32), Sampling(temperature=0.5))
        >>> tokens.tolist(), values.tolist()
        ([0, 1], [0.0, 4.0])
    """
    tokens = np.flatnonzero(np.isfinite(logits))
    values = logits[tokens]
    if sampling.repetition_penalty != 1.0:
        factor = np.float32(sampling.repetition_penalty)
        penalised = np.where(values < 0, values * factor, values / factor)
        values = np.where(np.isin(tokens, np.asarray(history, dtype=np.intp)), penalised, values)
    if sampling.temperature:
        values = values / np.float32(sampling.temperature)
        kept = np.sort(_kept(values, sampling))
        tokens, values = tokens[kept], values[kept]
    return tokens, values


def _kept(values: Floats, sampling: Sampling) -> NDArray[np.intp]:
    """Return the indices of the values [n] that top-k, top-p and min-p keep, always including the highest value's."""
    if sampling.top_k == 0 and sampling.top_p == 1.0 and sampling.min_p == 0.0:
        return np.arange(len(values))
    order = np.argsort(-values, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    likely = np.exp(values[order].astype(np.float64) - values[order[0]])
    before = np.cumsum(likely) - likely  # total weight of the more likely tokens
    is_kept = (before < sampling.top_p * likely.sum()) if sampling.top_p < 1.0 else np.ones(len(order), dtype=bool)
    is_kept &= likely >= sampling.min_p
    is_kept[0] = True
    return np.asarray(order[is_kept], dtype=np.intp)
