"""The registry of methods by name: all functions decorated with `@method` in the files of this folder (torch-free)."""

import sys
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from prosocial.core.errors import UnknownNameError

from .method import METHODS as METHODS
from .method import Method

for _file in iter_modules(sys.modules[__package__].__path__):
    import_module(f"{__package__}.{_file.name}")
for _name in sorted(METHODS):  # restores the order of names: a file that imports another one registers it first
    METHODS[_name] = METHODS.pop(_name)


def choose_method(name: str, parameters: Mapping[str, object]) -> Method:
    """Return a method by name, after validating its parameters.

    Raises:
        UnknownNameError: there is no such method, or it has no such parameter.
        InputError: a parameter is missing or out of range.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    METHODS[name].check(parameters)
    return METHODS[name]
