"""What the commands print: results on standard output, notes and progress on standard error, all of it printable."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prosocial.core.terminal import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Amount:
    """How much the running command prints, as `--quiet` and `--verbose` say."""

    quiet: bool = False
    verbose: bool = False


AMOUNT = Amount()


def say(text: str) -> None:
    """Print a line of the result on standard output."""
    print(printable(text), flush=True)


def note(text: str) -> None:
    """Print a line on standard error, unless the user wants it quiet."""
    if not AMOUNT.quiet:
        warn(text)


def warn(text: str) -> None:
    """Print a line on standard error, in any case."""
    print(printable(text), file=sys.stderr)


def say_json(value: Any, **options: Any) -> None:
    """Print one JSON value on standard output."""
    print(printable_json(value, **options))


def result_console(**options: Any) -> "Console":
    """Return the console of results: standard output, with control characters escaped."""
    return _console(**options)


def progress_console(*, quiet: bool = False) -> "Console":
    """Return the console of progress and notes: standard error; it prints nothing after `--quiet`."""
    return _console(stderr=True, quiet=quiet or AMOUNT.quiet)


def _console(**options: Any) -> "Console":
    from rich.console import Console, ConsoleOptions, RenderHook
    from rich.segment import Segment

    @dataclass
    class Printable:
        """A renderable whose text is printable."""

        inner: Any

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
            for segment in console.render(self.inner, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    class Escaping(RenderHook):
        """Makes all text printable that passes through a console; rich's own controls and styles stay."""

        def process_renderables(self, renderables: Sequence[Any]) -> list[Any]:
            return [Printable(renderable) for renderable in renderables]

    console = Console(**options)
    console.push_render_hook(Escaping())
    return console
