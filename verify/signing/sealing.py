"""Signing a folder: its files, the statements that its contents call for, and results that somebody brings."""

from collections.abc import Mapping
from pathlib import Path

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import storage_errors
from prosocial.core.signing.envelope import BrokenSignature, seal, unverified
from prosocial.core.signing.keys import SigningKey
from prosocial.core.signing.model_signature import (
    SIGNATURE_FILE,
    STATEMENTS_FOLDER,
    FolderDigest,
    signed_files,
    write_signature,
)

from .claims import REPORTS, claims, report_path, statement_path


def sign(
    folder: Path | str, key: SigningKey, *, reports: Mapping[str, Path | str] | None = None, again: bool = False
) -> list[str]:
    """Sign a folder and what can be stated of it; return the relative paths of the files written.

    A folder whose signature is about the same bytes keeps it, whoever signed it, and gets further statements only: so
    an auditor adds a result to what a publisher signed. Every file is read.

    Args:
        folder: a checkpoint, vector, steered folder or bundle.
        key: of the signer.
        reports: results to state, by `parity` and `audit`: the JSON of `prosocial verify` and `prosocial audit`.
        again: sign changed files anew; what was stated of the old ones is deleted.

    Raises:
        ArtefactError: the folder contradicts itself, a report is of another form or about something else, or a file is
            a link.
        InputError: the files changed since they were signed, or a report fits no such folder.
    """
    folder = Path(folder)
    found = FolderDigest.of(folder)
    links = [name for name in found.files if (folder / name).is_symlink()]
    if links:
        raise ArtefactError(f"{folder} should hold its files itself, {links[0]} is a link: copy the folder, then sign")
    is_signed = _is_signed(folder, found, again)
    given = {name: Path(report) for name, report in (reports or {}).items()}
    makers = claims(folder, found, given)
    for name in given:
        if name not in REPORTS or name not in makers:
            raise InputError(f"{folder} should be something that a report on {name} can be about: it is not")
    stated = {name: make() for name, make in makers.items() if name in given or name not in REPORTS}
    if not is_signed:
        _forget(folder)
    with storage_errors(folder):
        (folder / STATEMENTS_FOLDER).mkdir(exist_ok=True)
        for name, report in given.items():
            report_path(folder, name).write_bytes(report.read_bytes())
    fresh = [name for name in stated if name in given or not statement_path(folder, name).is_file()]
    for name in fresh:
        seal(statement_path(folder, name), stated[name], key)
    if not is_signed:
        write_signature(folder, found, key)
    written = [*(report_path(folder, name) for name in given), *(statement_path(folder, name) for name in fresh)]
    names = [path.relative_to(folder).as_posix() for path in written]
    return names if is_signed else [*names, SIGNATURE_FILE]


sign_folder = sign  # its name in 0.1.0


def _is_signed(folder: Path, found: FolderDigest, again: bool) -> bool:
    """Whether the signature in a folder is about the files that lie there now."""
    path = folder / SIGNATURE_FILE
    if not path.is_file() or again:
        return False
    try:
        if signed_files(unverified(path)) == found.files:
            return True
    except BrokenSignature:
        pass
    raise InputError(f"{folder} should be as it was signed, its files changed since; sign it anew with --again")


def _forget(folder: Path) -> None:
    """Delete a signature and the statements about the same bytes."""
    with storage_errors(folder):
        (folder / SIGNATURE_FILE).unlink(missing_ok=True)
        for path in [*(folder / STATEMENTS_FOLDER).glob("*.json")]:
            path.unlink()
