"""How a token is chosen from logits: greedy, or drawn inside the safe set (torch-free).

Every setting only closes tokens or moves finite logits: what the rule closed stays closed. Rows are shaped one by one
over their finite logits, so that no result hangs on the batch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from prosocial.core.noise import GumbelNoise
from prosocial.core.settings import StrictSettings

LEAST_TEMPERATURE = 1e-3
Floats = NDArray[np.float32]


class Sampling(StrictSettings):
    """How a token is drawn from logits; the defaults take the most likely token.

    Applied in this order: repetition penalty, temperature, top-k, top-p (arXiv 1904.09751), min-p (arXiv 2407.01082).
    The penalty divides positive and multiplies negative logits of tokens that the prompt or the reply already holds
    (arXiv 1909.05858), in greedy replies too. The descriptions are also the help of the commands that draw replies.
    """

    temperature: float = Field(
        default=0.0, ge=0.0, description="0 takes the most likely token; above 0 the reply is drawn."
    )
    top_k: int = Field(default=0, ge=0, description="Draw among the k most likely tokens; 0: all.")
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="Draw among the most likely tokens of this probability together."
    )
    min_p: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Draw among tokens at least this fraction as likely as the likeliest."
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0.0, le=10.0, description="Above 1: tokens that were used before become less likely."
    )
    seed: int = Field(default=0, description="Seed of the draw.")

    @field_validator("temperature")
    @classmethod
    def _is_no_tiny_temperature(cls, value: float) -> float:
        if 0.0 < value < LEAST_TEMPERATURE:
            raise ValueError(f"should be 0 or at least {LEAST_TEMPERATURE}")
        return value


class Sampler:
    """Chooses tokens for the rows of a request.

    Args:
        sampling: the settings. row_keys: one text per row that its noise hangs on.
    """

    def __init__(self, sampling: Sampling, row_keys: Sequence[str]) -> None:
        self.sampling = sampling
        self._noise = GumbelNoise(sampling.seed, row_keys) if sampling.temperature else None

    @property
    def reads_history(self) -> bool:
        """Whether earlier tokens count."""
        return self.sampling.repetition_penalty != 1.0

    def choose(
        self, logits: Floats, rows: Sequence[int], histories: Sequence[Sequence[int]] | None = None
    ) -> NDArray[np.intp]:
        """Return the next token [B] of some rows.

        Args:
            logits: [B, V], at least one finite in each row, minus infinity where a token is closed.
            rows: B indices among the row keys. histories: B lists of earlier tokens, where they count.
        """
        if not len(rows):
            return np.zeros(0, dtype=np.intp)
        if self._noise is None and not self.reads_history:
            return np.asarray(logits.argmax(-1), dtype=np.intp)
        seen = [()] * len(rows) if histories is None else histories
        shaped = np.stack([shape_logits(row, self.sampling, past) for row, past in zip(logits, seen, strict=True)])
        if self._noise is not None:
            shaped += self._noise.draw(logits.shape[-1], rows)
        return np.asarray(shaped.argmax(-1), dtype=np.intp)


def shape_logits(logits: Floats, sampling: Sampling, history: Sequence[int] = ()) -> Floats:
    """Return the logits [V] of one row that a draw is made from; closed tokens stay closed, one at least stays open.

    Example:
        >>> shape_logits(np.array([0.0, 2.0, -np.inf], np.float32), Sampling(temperature=0.5, top_k=1)).tolist()
        [-inf, 4.0, -inf]
    """
    tokens = np.flatnonzero(np.isfinite(logits))
    values = logits[tokens]
    if sampling.repetition_penalty != 1.0:
        factor = np.float32(sampling.repetition_penalty)
        penalised = np.where(values < 0, values * factor, values / factor)
        values = np.where(np.isin(tokens, np.asarray(history, dtype=np.intp)), penalised, values)
    if sampling.temperature:
        values = values / np.float32(sampling.temperature)
        kept = _kept(values, sampling)
        tokens, values = tokens[kept], values[kept]
    shaped = np.full_like(logits, -np.inf)
    shaped[tokens] = values
    return shaped


def _kept(values: Floats, sampling: Sampling) -> NDArray[np.intp]:
    """Return the places of the values [n] that top-k, top-p and min-p leave, the most likely one always among them."""
    if sampling.top_k == 0 and sampling.top_p == 1.0 and sampling.min_p == 0.0:
        return np.arange(len(values))
    order = np.argsort(-values, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    likely = np.exp(values[order].astype(np.float64) - values[order[0]])
    before = np.cumsum(likely) - likely  # the mass of the more likely ones
    is_kept = (before < sampling.top_p * likely.sum()) if sampling.top_p < 1.0 else np.ones(len(order), dtype=bool)
    is_kept &= likely >= sampling.min_p
    is_kept[0] = True
    return np.asarray(order[is_kept], dtype=np.intp)
