"""Drop elements at random and rescale the others (DARE, arXiv 2311.03099).

m ~ Bernoulli(density);  tau' = m * tau / density, whose expectation is tau

Several runs are averaged first. The noise depends only on the seed, the tensor's name and the position in the tensor.
"""

from __future__ import annotations

from typing import Annotated

from prosocial.core.noise import uniform_noise

from .in_torch import in_torch, torch
from .method import Deltas, Prepared, method
from .numbers import Number, Seed


def drop_and_rescale(delta: torch.Tensor, keep: torch.Tensor | float, noise: torch.Tensor) -> torch.Tensor:
    """Keep each element with a probability and divide it by that probability; set the others to zero.

    Args:
        delta: the delta, fp32.
        keep: probability in (0, 1] to keep an element: one number, or a tensor of the delta's shape.
        noise: uniform random numbers in [0, 1) of the delta's shape; an element is kept if its noise is below `keep`.
    """
    return torch.where(noise < keep, delta / keep, 0.0)


@method(elementwise=True)
def prepare(
    deltas: Deltas,
    *,
    density: Annotated[float, Number(0, 1, above=True, search=(0.1, 1.0), log=True)],
    seed: Seed = 0,
) -> Prepared:
    """Prepare the method; the deltas are not read.

    Args:
        deltas: not read.
        density: probability to keep an element.
        seed: seed of the noise.
    """

    def transform(name: str, delta: torch.Tensor) -> torch.Tensor:
        noise = torch.from_numpy(uniform_noise(seed, name, delta.numel()))
        return drop_and_rescale(delta, density, noise.reshape(delta.shape))

    return Prepared(in_torch(transform), {"density": density, "seed": seed})
