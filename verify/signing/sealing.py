"""Signing a folder: its files, the statements that its contents require, and given verification results."""

from collections.abc import Mapping
from pathlib import Path

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import alone, delete_asides, require_no_links, storage_errors, written_aside
from prosocial.core.signing.envelope import BrokenSignature, seal, unseal, unverified
from prosocial.core.signing.keys import SigningKey
from prosocial.core.signing.model_signature import (
    SIGNATURE_FILE,
    STATEMENTS_FOLDER,
    FolderDigest,
    made_statements,
    signed_files,
    write_signature,
)

from .claims import REPORTS, claims, report_path, statement_path


def sign(
    folder: Path | str, key: SigningKey, *, reports: Mapping[str, Path | str] | None = None, again: bool = False
) -> list[str]:
    """Sign a folder and the statements about it; return the relative paths of the files written.

    An existing signature over the same files is kept, whoever made it, and only statements are added: an auditor can
    add a result to what a publisher signed. The signature names the statements that were there when its own key last
    signed, so that removing one is noticed. Every file is read.

    Args:
        folder: a checkpoint, vector, steered folder or bundle.
        key: private key of the signer.
        reports: paths of results to state, by `parity` or `audit`: JSON of `prosocial verify` and `prosocial audit`.
        again: sign changed files again; statements about the old files are deleted.

    Raises:
        ArtefactError: the folder contradicts itself, a report has another schema or is about another folder, or a file
            is a symbolic link.
        InputError: the files changed since they were signed, a report cannot be about this kind of folder, or another
            process is signing it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtefactError(f"expected a folder at {folder}: there is none")
    with alone(folder.resolve()):
        return _sign(folder, key, reports or {}, again)


def _sign(folder: Path, key: SigningKey, reports: Mapping[str, Path | str], again: bool) -> list[str]:
    for place in (folder, folder / STATEMENTS_FOLDER):  # they would be signed too
        delete_asides(place)
    require_no_links(folder)
    digest = FolderDigest.of(folder)
    is_signed = _is_signed(folder, digest, again)
    given = {name: Path(report) for name, report in reports.items()}
    makers = claims(folder, digest, given)
    for name in given:
        if name not in REPORTS or name not in makers:
            raise InputError(
                f"{folder} should be of a kind that has a report on {name}, but it is not: omit the report"
            )
    stated = {name: make() for name, make in makers.items() if name in given or name not in REPORTS}
    if not is_signed:
        _forget(folder)
    with storage_errors(folder):
        (folder / STATEMENTS_FOLDER).mkdir(exist_ok=True)
        for name, report in given.items():
            with written_aside(report_path(folder, name)) as aside:
                aside.write_bytes(report.read_bytes())
    fresh = [name for name in stated if name in given or not statement_path(folder, name).is_file()]
    for name in fresh:
        seal(statement_path(folder, name), stated[name], key)
    named = _named_by(folder, key) if is_signed else frozenset()
    there = {name for name in makers if statement_path(folder, name).is_file()}
    signs = not is_signed or (named is not None and not there <= named)
    if signs:
        write_signature(folder, digest, key, statements={*there, *(named or ())})
    written = [*(report_path(folder, name) for name in given), *(statement_path(folder, name) for name in fresh)]
    names = [path.relative_to(folder).as_posix() for path in written]
    return [*names, SIGNATURE_FILE] if signs else names


sign_folder = sign  # its name in 0.1.0


def _is_signed(folder: Path, digest: FolderDigest, again: bool) -> bool:
    """Whether the signature in a folder covers its current files."""
    path = folder / SIGNATURE_FILE
    if not path.is_file() or again:
        return False
    try:
        if signed_files(unverified(path)) == digest.files:
            return True
    except BrokenSignature:
        pass
    raise InputError(f"{folder} should be unchanged since it was signed, but files changed: sign again with --again")


def _named_by(folder: Path, key: SigningKey) -> frozenset[str] | None:
    """Return the statements that a folder's signature names if this key made it; None if another key did."""
    try:
        return made_statements(unseal(folder / SIGNATURE_FILE, [key.public])[0])
    except BrokenSignature:
        return None


def _forget(folder: Path) -> None:
    """Delete a signature and the statements about the same files."""
    with storage_errors(folder):
        (folder / SIGNATURE_FILE).unlink(missing_ok=True)
        for path in [*(folder / STATEMENTS_FOLDER).glob("*.json")]:
            path.unlink()
