"""Writes docs/reference/command-line.md: every command with its usage, arguments and options, from the program itself.

Run it after a change of an option: `python .ci/write_command_line.py`; a test compares the page with the program.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from prosocial.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"
PROGRAM = "prosocial"
HEAD = """# Command line

Generated from the program by `.ci/write_command_line.py`. `prosocial COMMAND --help` prints the same in a terminal.

| Exit code | Meaning |
|---|---|
| 0 | done; for a command with a verdict: pass |
| 1 | a verdict of fail, worse, refuted or different |
| 2 | bad input, or the disk is full: one line on standard error, nothing is written |
| 3 | ambiguous, or no verdict is possible |
| 70 | an error in prosocial itself; the line names a file with the details to report |
| 130 | interrupted with Ctrl-C |
| 141 | the reader of the output closed it |
"""


def page() -> str:
    """Return the page in Markdown."""
    command = typer.main.get_command(app)
    return "\n".join([HEAD, *_sections(command, typer.Context(command, info_name=PROGRAM), PROGRAM)])


def _sections(command: Any, context: typer.Context, name: str) -> Iterator[str]:
    """Yield the lines of a command, then those of its subcommands."""
    yield f"## {name}\n"
    yield f"{command.help}\n"
    if command.epilog:
        label, _, example = command.epilog.partition(": ")
        yield f"{label}: `{example}`\n"
    yield f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    records = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
    yield from (f"- `{option}`: {text.strip()}" for option, text in records if not option.startswith("--help"))
    yield ""
    for subcommand in getattr(command, "commands", {}).values():
        if not subcommand.hidden:
            inner = typer.Context(subcommand, info_name=subcommand.name, parent=context)
            yield from _sections(subcommand, inner, f"{name} {subcommand.name}")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit()
