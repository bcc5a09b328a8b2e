"""What a method is: it looks at all deltas, once or more, then shapes them one by one."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError, UnknownNameError

from ..vector import LowRank
from .numbers import Number, number_of

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
        name: its name.
        function: takes the deltas and the parameters, which are its keyword-only arguments.
        elementwise: whether every element of the mean delta is multiplied with a number that is not negative: such
            methods can follow each other and never turn the direction.
    """

    name: str
    function: Callable[..., Prepared]
    elementwise: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that must be given."""
        return tuple(each.name for each in self._keywords if each.default is each.empty)

    @property
    def defaults(self) -> dict[str, object]:
        """The parameters that need not be given, and their values then."""
        return {each.name: each.default for each in self._keywords if each.default is not each.empty}

    @property
    def numbers(self) -> dict[str, Number]:
        """The values that each parameter may have that is a number; a method checks the others itself."""
        return {each.name: number for each in self._keywords if (number := number_of(each.annotation))}

    @property
    def settings(self) -> list[str]:
        """One line for each parameter: its name, its default and its values."""
        defaults = {name: "=auto" if value is None else f"={value}" for name, value in self.defaults.items()}
        values = {name: f": {number}" for name, number in self.numbers.items()}
        return [f"{name}{defaults.get(name, '')}{values.get(name, '')}" for name in (*self.parameters, *defaults)]

    @property
    def summary(self) -> str:
        """The first line of the method's file."""
        return (sys.modules[self.function.__module__].__doc__ or "").partition("\n")[0]

    def check(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the parameters that the function is called with.

        Raises:
            UnknownNameError: there is no such parameter.
            InputError: a parameter is missing or out of range.
        """
        known = (*self.parameters, *self.defaults)
        for name in given:
            if name not in known:
                raise UnknownNameError(f"parameter of method {self.name}", name, known or ("none",))
        if missing := [name for name in self.parameters if name not in given]:
            raise InputError(f"method {self.name} should be given {', '.join(missing)}: it is missing")
        return {name: self.check_value(name, value) for name, value in given.items()}

    def check_value(self, name: str, value: object) -> object:
        """Return the value of a parameter that the function is called with.

        Raises:
            InputError: it is out of range.
        """
        is_default = name in self.defaults and value is self.defaults[name]
        return value if is_default or name not in self.numbers else self.numbers[name].check(name, value)

    def prepare(self, deltas: Deltas, **given: object) -> Prepared:
        """Look at the deltas; raises what `check` and the method raise, before it reads a delta."""
        return self.function(deltas, **self.check(given))

    @cached_property
    def _keywords(self) -> tuple[inspect.Parameter, ...]:
        declared = inspect.signature(self.function, eval_str=True).parameters.values()
        return tuple(each for each in declared if each.kind is inspect.Parameter.KEYWORD_ONLY)


METHODS: dict[str, Method] = {}
Function = TypeVar("Function", bound=Callable[..., Prepared])


def method(*, elementwise: bool = False) -> Callable[[Function], Function]:
    """Register a function as the method that its file is named after (see `Method`)."""

    def register(function: Function) -> Function:
        name = function.__module__.rpartition(".")[2]
        METHODS[name] = Method(name, function, elementwise)
        return function

    return register
