"""The command `log check`: checks an audit log."""

from pathlib import Path
from typing import Annotated

import typer

from .output import say, say_json
from .safety_options import default_head

EXIT_CODES = {"pass": 0, "fail": 1, "cannot say": 3}
log_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Audit logs of requests (docs/safety-configs.md)."
)


@log_app.callback()
def _group() -> None:
    """Make typer keep `check` as a subcommand although it is the only one."""


@log_app.command(epilog="Example: prosocial log check requests.jsonl --key operator.pub")
def check(
    log: Annotated[Path, typer.Argument(help="The log.")],
    key: Annotated[list[Path], typer.Option(help="The operator's public key, in PEM; may repeat.")],
    head: Annotated[Path | None, typer.Option(help="The signed head, or a copy of an older one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Detect edited, removed or moved lines, and a truncated end.

    Exit code: 0 the signature covers all lines, 1 the log was changed, 3 there are lines after the signed head.
    """
    from prosocial.core.signing import TrustedKey
    from prosocial.steering.audit_log.log import check_log

    result = check_log(log, head or default_head(log), [TrustedKey.read(path) for path in key])
    if as_json:
        report = {
            "verdict": result.verdict,
            "lines": result.lines,
            "signed": result.signed,
            "problems": result.problems,
        }
        say_json(report)
    else:
        for problem in result.problems:
            say(problem)
        say(f"{result.verdict}: {result.lines} lines, the signed head covers {result.signed}")
    raise typer.Exit(EXIT_CODES[result.verdict])
