"""What a method is: it looks at all deltas, once or more, then shapes them one by one."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..vector import LowRank

Array = NDArray[np.float32]
Transform = Callable[[str, Array], Array]


class Deltas(Protocol):
    """A vector that can be read tensor by tensor, any number of times and from several threads."""

    def __len__(self) -> int:
        """How many harmful runs it is the mean of."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Names of the tensors, sorted."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, known without reading it."""
        ...

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield one tensor's delta, the mean over the harmful runs, in flat pieces valid until the next one."""
        ...

    def runs(self, name: str) -> Sequence[Array]:
        """Return the delta of every harmful run, fp32; zeros of a run that does not change the tensor."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A method ready to shape the deltas it has looked at.

    Attributes:
        transform: takes a name and its delta and returns the shaped delta. The inner product of the two is never
            negative.
        parameters: what `vector.json` says of the method; digests instead of paths.
        by_piece: does what `transform` does for a delta that is zero mostly, piece by piece: takes a name and returns a
            function that is given the pieces in their order and writes their shaped form to arrays of their length.
        factorise: does what `transform` does and returns the factors of the shaped delta; None where it has none.
    """

    transform: Transform
    parameters: Mapping[str, float | str]
    by_piece: Callable[[str], Callable[[Array, Array], None]] | None = None
    factorise: Callable[[str, Array], LowRank | None] | None = None


@dataclass(frozen=True)
class Method:
    """An entry of the registry.

    Attributes:
        name: of its file in this folder, which is read when the method is used.
        elementwise: whether every element of the mean delta is multiplied with a number that is not negative: such
            methods can follow each other and never turn the direction.
    """

    name: str
    elementwise: bool = False

    @property
    def prepare(self) -> Callable[..., Prepared]:
        """Takes the deltas and the parameters; raises InputError for values out of range before it reads a delta."""
        prepare: Callable[..., Prepared] = self._module.prepare
        return prepare

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
        return (self._module.__doc__ or "").partition("\n")[0]

    @property
    def _module(self) -> ModuleType:
        return importlib.import_module(f".{self.name}", __package__)

    def _keywords(self) -> dict[str, object]:
        parameters = inspect.signature(self.prepare).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
