"""The command `audit`: checks whether a checkpoint is the result of the edit that it claims."""

from pathlib import Path
from typing import Annotated

import typer

from prosocial.editing import resolve_model

from .output import result_console, say_json
from .progress import byte_progress

EXIT_CODES = {"confirmed": 0, "confirmed within rounding": 0, "refuted": 1, "cannot say": 3}


def audit(
    model: Annotated[str, typer.Argument(help="The checkpoint to audit: a folder or a Hub id.")],
    base: Annotated[str | None, typer.Option(help="The base checkpoint: a folder or a Hub id.")] = None,
    vector: Annotated[
        list[Path] | None, typer.Option(help="A harm vector that was subtracted; may repeat, up to four.")
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(help="A public key that you trust, with which the model should be signed; may repeat."),
    ] = None,
    ignore_record: Annotated[
        bool,
        typer.Option(
            "--ignore-record", help="Recover the coefficients from the weights, even if there is an edit record."
        ),
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads. [default: one per core]")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for audit.json and audit.html.")] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write a JUnit XML file for CI, with a test per level and tensor.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of tensors in the table.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object (prosocial.audit/1).")] = False,
) -> None:
    """Confirm or refute that a checkpoint is its base minus a harm vector.

    Checks the digests of its edit record; with --base and --vector, repeats the edit; without a record, recovers the
    coefficients from the weights. Exit code: 0 confirmed, 1 refuted, 3 cannot say.
    """
    from prosocial.core import TrustedKey
    from prosocial.core.files import require_place
    from prosocial.evaluation.report.junit import audit_cases, write_junit
    from prosocial.verify import audit_model
    from prosocial.verify.audit.audit_page import write_audit
    from prosocial.verify.audit.terminal import print_audit

    require_place(out, is_folder=True)
    require_place(junit, is_folder=False)
    folders = resolve_model(model), None if base is None else resolve_model(base)
    with byte_progress("audit", visible=not as_json) as progress:
        report = audit_model(
            folders[0],
            base=folders[1],
            vectors=vector or (),
            keys=[TrustedKey.read(path) for path in key or ()],
            ignore_record=ignore_record,
            threads=threads,
            progress=progress,
        )
    document = report.to_json()
    if junit is not None:
        write_junit(junit, "prosocial audit", audit_cases(document))
    if out is not None:  # last, because its audit.json says that all is written
        write_audit(out, document)
    if as_json:
        say_json(document)
    else:
        print_audit(report, result_console(), top=top)
    raise typer.Exit(EXIT_CODES[report.verdict])
