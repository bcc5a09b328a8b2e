"""What a method is: it looks at all deltas once, then shapes them one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

Transform = Callable[[str, torch.Tensor], torch.Tensor]


class Deltas(Protocol):
    """A vector that can be read tensor by tensor, any number of times."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the tensors, sorted."""
        ...

    def delta(self, name: str) -> torch.Tensor:
        """Return one tensor's delta, fp32."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A method ready to shape the deltas it has looked at.

    Attributes:
        transform: takes a name and its delta and returns the shaped delta; called once per name, in the order of
            `names`. The inner product of the result with the delta is never negative.
        parameters: what `vector.json` says of the method; digests instead of paths.
    """

    transform: Transform
    parameters: Mapping[str, float | str]


@dataclass(frozen=True)
class Method:
    """An entry of the registry.

    Attributes:
        parameters: names of the keyword arguments of `prepare`, all of them needed.
        prepare: takes the deltas and the parameters; raises InputError for values out of range before it reads a delta.
    """

    parameters: tuple[str, ...]
    prepare: Callable[..., Prepared]
