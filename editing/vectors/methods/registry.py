"""The methods by name: to add one, write its file, add its line, test it, describe it in `docs/methods.md`."""

from collections.abc import Mapping

from ...errors import InputError, UnknownNameError
from . import (
    breadcrumbs,
    dare,
    della,
    ext_sub,
    lines,
    low_rank,
    negmerge,
    null_space,
    plain,
    project,
    ties,
    top_k,
    top_k_per_tensor,
)
from .method import Method

METHODS: dict[str, Method] = {
    "breadcrumbs": Method(breadcrumbs.prepare, elementwise=True),
    "dare": Method(dare.prepare, elementwise=True),
    "della": Method(della.prepare, elementwise=True),
    "ext_sub": Method(ext_sub.prepare),
    "lines": Method(lines.prepare, elementwise=True),
    "low_rank": Method(low_rank.prepare),
    "negmerge": Method(negmerge.prepare, elementwise=True),
    "null_space": Method(null_space.prepare),
    "plain": Method(plain.prepare, elementwise=True),
    "project": Method(project.prepare),
    "ties": Method(ties.prepare),
    "top_k": Method(top_k.prepare, elementwise=True),
    "top_k_per_tensor": Method(top_k_per_tensor.prepare, elementwise=True),
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
