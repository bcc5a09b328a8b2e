"""Options that several commands share, declared once: a command takes them as one argument."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from prosocial.core.settings import Settings


def with_options(argument: str, options: Mapping[str, Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that puts options in the place of one argument of a command.

    Args:
        argument: name of the command's argument; it gets a dictionary of the options' values by name.
        options: typer annotation by option name; each is None unless the user gives it.

    Example:
        >>> @with_options("chosen", {"seed": Annotated[int | None, typer.Option(help="Seed of the draw.")]})
        ... def draw(bundle: str, chosen: dict[str, Any]) -> None:
        ...     print(bundle, chosen)
        >>> list(inspect.signature(draw).parameters)
        ['bundle', 'seed']
        >>> draw(bundle="a", seed=3)
        a {'seed': 3}
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            added = options.items() if parameter.name == argument else [(parameter.name, parameter.annotation)]
            default = None if parameter.name == argument else parameter.default
            parameters += [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
                for name, annotation in added
            ]

        @functools.wraps(command)
        def run(**given: Any) -> Any:
            chosen = {name: given.pop(name) for name in options}
            return command(**given, **{argument: chosen})

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def options_of(settings: type[Settings]) -> dict[str, Any]:
    """Return an option for each field of a settings class: its type, and its description as help.

    A field becomes an option by having a description, so that a new setting needs no second declaration here.
    """
    return {
        name: Annotated[field.annotation | None, typer.Option(help=field.description)]  # type: ignore[operator]
        for name, field in settings.model_fields.items()
        if field.description
    }
