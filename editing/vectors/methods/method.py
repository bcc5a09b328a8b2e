"""The interface of a method: it may read all deltas first, then it shapes them one by one."""

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
        """Number of harmful runs that the vector is the mean of."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Names of the tensors, sorted."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading the tensor."""
        ...

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield one tensor's delta (the mean of the runs) in flat pieces, each valid until the next one is read."""
        ...

    def runs(self, name: str) -> Sequence[Array]:
        """Return the delta of every harmful run, fp32; zeros for a run that does not change the tensor."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A method that is ready to shape deltas.

    Attributes:
        transform: function from a tensor's name and its delta to the shaped delta. The inner product of the two deltas
            must not be negative.
        parameters: parameters as written to `vector.json`; digests instead of paths.
        by_piece: the same as `transform`, but piece by piece, for methods whose result is mostly zero: a function from
            a tensor's name to a function that is called with each piece in order and an output array of its length.
        factorise: the same as `transform`, but returns the factors of the shaped delta; None if it has none.
    """

    transform: Transform
    parameters: Mapping[str, float | str]
    by_piece: Callable[[str], Callable[[Array, Array], None]] | None = None
    factorise: Callable[[str, Array], LowRank | None] | None = None


@dataclass(frozen=True)
class Method:
    """An entry of the registry of methods.

    Attributes:
        name: name of the method.
        function: function that prepares the method from the deltas; its keyword-only arguments are the parameters.
        elementwise: whether the method multiplies every element of the mean delta by a non-negative number. Several
            such methods can be applied one after the other without reversing the direction of a delta.
    """

    name: str
    function: Callable[..., Prepared]
    elementwise: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the required parameters."""
        return tuple(each.name for each in self._keywords if each.default is each.empty)

    @property
    def defaults(self) -> dict[str, object]:
        """The optional parameters and their default values."""
        return {each.name: each.default for each in self._keywords if each.default is not each.empty}

    @property
    def numbers(self) -> dict[str, Number]:
        """The allowed values of each numeric parameter; a method checks its other parameters itself."""
        return {each.name: number for each in self._keywords if (number := number_of(each.annotation))}

    @property
    def settings(self) -> list[str]:
        """One line for each parameter: its name, its default and its allowed values."""
        defaults = {name: "=auto" if value is None else f"={value}" for name, value in self.defaults.items()}
        values = {name: f": {number}" for name, number in self.numbers.items()}
        return [f"{name}{defaults.get(name, '')}{values.get(name, '')}" for name in (*self.parameters, *defaults)]

    @property
    def summary(self) -> str:
        """One sentence on the method: the first line of its file's docstring."""
        return (sys.modules[self.function.__module__].__doc__ or "").partition("\n")[0]

    def check(self, given: Mapping[str, object]) -> dict[str, object]:
        """Validate parameters and return them as the function takes them.

        Raises:
            UnknownNameError: the method has no such parameter.
            InputError: a parameter is missing or out of range.
        """
        known = (*self.parameters, *self.defaults)
        for name in given:
            if name not in known:
                raise UnknownNameError(f"parameter of method {self.name}", name, known or ("none",))
        if missing := [name for name in self.parameters if name not in given]:
            raise InputError(f"method {self.name} should be given {', '.join(missing)}: missing; give each a value")
        return {name: self.check_value(name, value) for name, value in given.items()}

    def check_value(self, name: str, value: object) -> object:
        """Validate the value of a parameter and return it as the function takes it.

        Raises:
            InputError: the value is out of range.
        """
        is_default = name in self.defaults and value is self.defaults[name]
        return value if is_default or name not in self.numbers else self.numbers[name].check(name, value)

    def prepare(self, deltas: Deltas, **given: object) -> Prepared:
        """Prepare the method for the deltas; parameters are validated before a delta is read (see `check`)."""
        return self.function(deltas, **self.check(given))

    @cached_property
    def _keywords(self) -> tuple[inspect.Parameter, ...]:
        declared = inspect.signature(self.function, eval_str=True).parameters.values()
        return tuple(each for each in declared if each.kind is inspect.Parameter.KEYWORD_ONLY)


METHODS: dict[str, Method] = {}
Function = TypeVar("Function", bound=Callable[..., Prepared])


def method(*, elementwise: bool = False) -> Callable[[Function], Function]:
    """Return a decorator that registers a function as a method, named after its file.

    Args:
        elementwise: see `Method`.
    """

    def register(function: Function) -> Function:
        name = function.__module__.rpartition(".")[2]
        METHODS[name] = Method(name, function, elementwise)
        return function

    return register
