"""The commands `log check` and `log witness`: check an audit log, and note how it ends."""

from pathlib import Path
from typing import Annotated

import typer

from .output import say, say_json
from .safety_options import default_head

EXIT_CODES = {"pass": 0, "fail": 1, "cannot say": 3}
log_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Audit logs of requests (docs/safety-configs.md)."
)


Log = Annotated[Path, typer.Argument(help="The log.")]
Key = Annotated[list[Path], typer.Option(help="The operator's public key, in PEM; may repeat.")]
Head = Annotated[Path | None, typer.Option(help="The signed head, or a copy of an older one.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@log_app.command(epilog="Example: prosocial log check requests.jsonl --key operator.pub --witness /mnt/other/witness")
def check(
    log: Log,
    key: Key,
    head: Head = None,
    witness: Annotated[
        list[Path] | None, typer.Option(help="A file written by log witness; finds a deleted log too; may repeat.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Detect edited, removed or moved lines, and a truncated end.

    Exit code: 0 the signature covers all lines, 1 the log was changed, 3 there are lines after the signed head, or the
    writing of the last line was interrupted.
    """
    from prosocial.core.signing import TrustedKey
    from prosocial.steering.audit_log.log import check_log
    from prosocial.steering.audit_log.witness import read_witnesses

    witnesses = read_witnesses(witness or ())
    result = check_log(log, head or default_head(log), [TrustedKey.read(path) for path in key], witnesses=witnesses)
    if as_json:
        report = {
            "verdict": result.verdict,
            "lines": result.lines,
            "signed": result.signed,
            "problems": result.problems,
            "interrupted": result.interrupted,
        }
        say_json(report)
    else:
        for problem in result.problems:
            say(problem)
        if result.interrupted:
            say(f"line {result.signed} was interrupted while it was written: the next request completes it")
        say(f"{result.verdict}: {result.lines} lines, the signed head covers {result.signed}")
    raise typer.Exit(EXIT_CODES[result.verdict])


@log_app.command(epilog="Example: prosocial log witness requests.jsonl --key operator.pub -o /mnt/other/witness")
def witness(
    log: Log,
    key: Key,
    head: Head = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Append to this file, where the log's writer cannot write.")
    ] = None,
) -> None:
    """Print how the log ends: keep it elsewhere, so that log check --witness notices a deleted or replaced log."""
    from prosocial.core.errors import ArtefactError
    from prosocial.core.signing import TrustedKey
    from prosocial.steering.audit_log.log import check_log
    from prosocial.steering.audit_log.witness import Witness, append_witness
    from prosocial.steering.configs.authorised import utc_now

    result = check_log(log, head or default_head(log), [TrustedKey.read(path) for path in key])
    if result.verdict != "pass":
        raise ArtefactError(f"{log} should pass before a witness is taken, found {result.verdict}: run log check")
    seen = Witness(lines=result.lines, last=result.last, time=f"{utc_now():%Y-%m-%dT%H:%M:%SZ}")
    if out is not None:
        append_witness(out, seen)
    say(seen.to_line())
