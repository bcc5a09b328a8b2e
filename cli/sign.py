"""The commands `sign` and `check-signature`."""

from pathlib import Path
from typing import Annotated

import typer

from .output import result_console, say, say_json

EXIT_CODES = {"pass": 0, "fail": 1, "cannot say": 3}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def sign(
    folder: Annotated[Path, typer.Argument(help="A checkpoint, vector, steered folder or bundle.")],
    key: Annotated[Path, typer.Option(help="Your private key: EC P-256 in PEM (encrypted: PROSOCIAL_KEY_PASSWORD).")],
    parity: Annotated[
        Path | None, typer.Option(help="The JSON of `prosocial verify --json`, to include as a signed statement.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(help="The JSON of `prosocial audit --json`, to include as a signed statement.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Sign changed files again; old statements are deleted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sign a folder's files, its edit or export, and verification results (OpenSSF model signing, in-toto)."""
    from prosocial.core import SigningKey
    from prosocial.verify import sign_folder

    given = {"parity": parity, "audit": audit}
    reports = {name: path for name, path in given.items() if path is not None}
    signer = SigningKey.read(key)
    written = sign_folder(folder, signer, reports=reports, again=again)
    if as_json:
        say_json({"folder": folder.name, "written": written, "key": signer.public.hint})
    else:
        say(f"signed {folder} with key {signer.public.hint[:16]}: {', '.join(written)}")


def check_signature(
    folder: Annotated[Path, typer.Argument(help="The signed folder.")],
    key: Annotated[list[Path], typer.Option(help="A public key that you trust, in PEM; may repeat.")],
    base: Annotated[Path | None, typer.Option(help="The base checkpoint, to compare with the edit record.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The signed checkpoint that the bundle was exported from.")
    ] = None,
    allow_missing: Annotated[
        list[str] | None, typer.Option(help="A link that may be missing: edit, export, parity or audit; may repeat.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the signed chain of base, edit, checkpoint, bundle, parity and audit; report missing or broken links.

    Exit code: 0 all links are valid, 1 a link is broken, 3 a link is missing or has no verdict.
    """
    from prosocial.core import TrustedKey
    from prosocial.verify import check_chain
    from prosocial.verify.signing.terminal import print_chain

    report = check_chain(
        folder,
        keys=[TrustedKey.read(path) for path in key],
        base=base,
        checkpoint=checkpoint,
        allow_missing=allow_missing or (),
    )
    if as_json:
        say_json(report.to_json())
    else:
        print_chain(report, result_console())
    raise typer.Exit(EXIT_CODES[report.verdict])
