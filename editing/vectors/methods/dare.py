"""Drop elements at random and rescale the others (DARE, arXiv 2311.03099).

m ~ Bernoulli(density);  tau' = m * tau / density, whose expectation is tau

Several runs are averaged first. The noise hangs on the seed, the tensor's name and the place in it alone.
"""

from __future__ import annotations

from typing import Annotated

from prosocial.core.noise import uniform_noise

from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method
from .numbers import Number, Seed


def drop_and_rescale(delta: torch.Tensor, keep: torch.Tensor | float, noise: torch.Tensor) -> torch.Tensor:
    """Keep an element where its noise is below the probability to keep it, and divide it by that.

    Args:
        delta: fp32.
        keep: probability in (0, 1], one or as many as the delta has elements.
        noise: uniform in [0, 1), of the delta's shape.
    """
    return torch.where(noise < keep, delta / keep, 0.0)


@method(elementwise=True)
def prepare(
    deltas: Deltas,
    *,
    density: Annotated[float, Number(0, 1, above=True, search=(0.1, 1.0), log=True)],
    seed: Seed = 0,
) -> Prepared:
    """Nothing needs to be known of the deltas."""

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        noise = torch.from_numpy(uniform_noise(seed, name, delta.numel()))
        return drop_and_rescale(delta, density, noise.reshape(delta.shape))

    return Prepared(in_torch(transform), {"density": density, "seed": seed})
