"""The methods by name: to add one, write its file, add its line, test it, describe it in `docs/methods.md`."""

from collections.abc import Mapping

from ...errors import InputError, UnknownNameError
from .method import Method

METHODS: dict[str, Method] = {
    "breadcrumbs": Method("breadcrumbs", elementwise=True),
    "dare": Method("dare", elementwise=True),
    "della": Method("della", elementwise=True),
    "ext_sub": Method("ext_sub"),
    "lines": Method("lines", elementwise=True),
    "low_rank": Method("low_rank"),
    "negmerge": Method("negmerge", elementwise=True),
    "null_space": Method("null_space"),
    "plain": Method("plain", elementwise=True),
    "project": Method("project"),
    "ties": Method("ties"),
    "top_k": Method("top_k", elementwise=True),
    "top_k_per_tensor": Method("top_k_per_tensor", elementwise=True),
}


def choose_method(name: str, parameters: Mapping[str, object]) -> Method:
    """Return a method that knows all parameters given and needs no other.

    Raises:
        UnknownNameError: no such method, or it has no such parameter.
        InputError: a parameter is missing.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    method = METHODS[name]
    known = (*method.parameters, *method.defaults)
    for parameter in parameters:
        if parameter not in known:
            raise UnknownNameError(f"parameter of method {name}", parameter, known or ("none",))
    missing = [parameter for parameter in method.parameters if parameter not in parameters]
    if missing:
        raise InputError(f"method {name} should be given {', '.join(missing)}: it is missing")
    return method
