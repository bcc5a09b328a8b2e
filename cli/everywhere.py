"""The options that every command has: `--quiet` and `--verbose`."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .given import check_given
from .output import AMOUNT

Quiet = Annotated[bool, typer.Option("--quiet", help="Print the result and errors only.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show what the libraries say, and the whole of an internal error.")
]


def with_amount(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that takes `--quiet` and `--verbose` too; they hold for everything that it prints.

    Examples:
        >>> def greet(name: str) -> None:
        ...     print(name, AMOUNT.quiet)
        >>> with_amount(greet)(name="you", quiet=True, verbose=False)
        you True
    """
    if getattr(command, "has_amount", False):
        return command
    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]

    @functools.wraps(command)
    def run(*, quiet: bool, verbose: bool, **given: Any) -> Any:
        before = AMOUNT.quiet, AMOUNT.verbose
        AMOUNT.quiet, AMOUNT.verbose = quiet, verbose
        try:
            check_given(given)
            return command(**given)
        finally:
            AMOUNT.quiet, AMOUNT.verbose = before

    keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in signature.parameters.values()]
    run.__signature__ = signature.replace(parameters=[*keyword_only, *added])  # type: ignore[attr-defined]
    run.has_amount = True  # type: ignore[attr-defined]
    return run
