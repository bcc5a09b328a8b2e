"""What a method is: it looks at all deltas, once or more, then shapes them one by one."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..vector import LowRank

Transform = Callable[[str, torch.Tensor], torch.Tensor]


class Deltas(Protocol):
    """A vector that can be read tensor by tensor, any number of times and from several threads."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the tensors, sorted."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, known without reading it."""
        ...

    def delta(self, name: str) -> torch.Tensor:
        """Return one tensor's delta, fp32: the mean over the harmful runs."""
        ...

    def runs(self, name: str) -> Sequence[torch.Tensor]:
        """Return the delta of every harmful run, fp32; zeros of a run that does not change the tensor."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A method ready to shape the deltas it has looked at.

    Attributes:
        transform: takes a name and its delta and returns the shaped delta; called once per name, in the order of
            `names`. The inner product of the result with the delta is never negative.
        parameters: what `vector.json` says of the method; digests instead of paths.
        factorise: does what `transform` does and returns the factors of the shaped delta; None where it has none.
    """

    transform: Transform
    parameters: Mapping[str, float | str]
    factorise: Callable[[str, torch.Tensor], LowRank | None] | None = None


@dataclass(frozen=True)
class Method:
    """An entry of the registry.

    Attributes:
        prepare: takes the deltas and the parameters; raises InputError for values out of range before it reads a delta.
        elementwise: whether every element of the mean delta is multiplied with a number that is not negative: such
            methods can follow each other and never turn the direction.
    """

    prepare: Callable[..., Prepared]
    elementwise: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that must be given."""
        return tuple(name for name, default in self._keywords().items() if default is inspect.Parameter.empty)

    @property
    def defaults(self) -> dict[str, object]:
        """The parameters that need not be given, and their values then."""
        return {name: value for name, value in self._keywords().items() if value is not inspect.Parameter.empty}

    @property
    def summary(self) -> str:
        """The first line of the method's file."""
        return (inspect.getdoc(inspect.getmodule(self.prepare)) or "").partition("\n")[0]

    def _keywords(self) -> dict[str, object]:
        parameters = inspect.signature(self.prepare).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
