"""The command about audit logs: check."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .safety_options import default_head

EXIT_CODES = {"pass": 0, "fail": 1, "cannot say": 3}
log_app = typer.Typer(no_args_is_help=True, help="Audit logs of requests (docs/safety-configs.md).")


@log_app.callback()
def _group() -> None:
    """Keep `check` a word of its own while it is the only command."""


@log_app.command(epilog="Example: prosocial log check requests.jsonl --key operator.pub")
def check(
    log: Annotated[Path, typer.Argument(help="The log.")],
    key: Annotated[list[Path], typer.Option(help="The operator's public key, in PEM (repeat it for several).")],
    head: Annotated[Path | None, typer.Option(help="The signed head, or a copy of an older one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find lines that were edited, removed or moved, and a tail that was cut.

    Exit code: 0 all lines are vouched for, 1 something was changed, 3 lines follow the head that nobody signed.
    """
    from prosocial.core.signing import TrustedKey
    from prosocial.steering.audit_log.log import check_log

    found = check_log(log, head or default_head(log), [TrustedKey.read(path) for path in key])
    if as_json:
        report = {"verdict": found.verdict, "lines": found.lines, "signed": found.signed, "problems": found.problems}
        typer.echo(json.dumps(report))
    else:
        for problem in found.problems:
            typer.echo(problem)
        typer.echo(f"{found.verdict}: {found.lines} lines, the head vouches for {found.signed}")
    raise typer.Exit(EXIT_CODES[found.verdict])
