"""The methods by name: to add one, write its file, add its line, test it, describe it."""

from collections.abc import Mapping

from ...errors import InputError, UnknownNameError
from . import plain, project, top_k
from .method import Method

METHODS: dict[str, Method] = {
    "plain": Method((), plain.prepare),
    "project": Method(("utility",), project.prepare),
    "top_k": Method(("density",), top_k.prepare),
}


def choose_method(name: str, parameters: Mapping[str, object]) -> Method:
    """Return a method whose parameters are exactly those given.

    Raises:
        UnknownNameError: no such method, or it has no such parameter.
        InputError: a parameter is missing.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    method = METHODS[name]
    for parameter in parameters:
        if parameter not in method.parameters:
            raise UnknownNameError(f"parameter of method {name}", parameter, method.parameters or ("none",))
    missing = [parameter for parameter in method.parameters if parameter not in parameters]
    if missing:
        raise InputError(f"method {name} should be given {', '.join(missing)}: it is missing")
    return method
