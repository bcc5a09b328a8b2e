"""Drop elements at random and rescale the others (DARE, arXiv 2311.03099).

m ~ Bernoulli(density);  tau' = m * tau / density, whose expectation is tau

Several runs are averaged first. The noise hangs on the seed, the tensor's name and the place in it alone.
"""

import torch

from ...noise import uniform_noise
from .in_torch import in_torch
from .method import Deltas, Prepared
from .numbers import share, whole


def drop_and_rescale(delta: torch.Tensor, keep: torch.Tensor | float, noise: torch.Tensor) -> torch.Tensor:
    """Keep an element where its noise is below the probability to keep it, and divide it by that.

    Args:
        delta: fp32.
        keep: probability in (0, 1], one or as many as the delta has elements.
        noise: uniform in [0, 1), of the delta's shape.
    """
    return torch.where(noise < keep, delta / keep, 0.0)


def prepare(deltas: Deltas, *, density: float, seed: int = 0) -> Prepared:
    """Nothing needs to be known of the deltas.

    Raises:
        InputError: density is not in (0, 1], or seed no whole number from 0.
    """
    density, seed = share("density", density), whole("seed", seed, 0)

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        noise = torch.from_numpy(uniform_noise(seed, name, delta.numel()))
        return drop_and_rescale(delta, density, noise.reshape(delta.shape))

    return Prepared(in_torch(transform), {"density": density, "seed": seed})
