"""Groups of options that several commands share; a command receives a group as one argument."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from prosocial.core.settings import Settings


def with_options(argument: str, options: Mapping[str, Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that replaces one argument of a command by a group of options.

    Args:
        argument: name of the command's argument; it receives a dictionary of the options' values by name.
        options: typer annotation by option name; an option that the user does not set is None.

    Examples:
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
    """Return a typer option for each field of a settings class that has a description, which becomes its help text.

    So a new setting becomes an option without a second declaration.
    """
    return {
        name: Annotated[field.annotation | None, typer.Option(help=field.description)]  # type: ignore[operator]
        for name, field in settings.model_fields.items()
        if field.description
    }
