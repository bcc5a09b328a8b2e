"""Checking the chain of signed statements from base to audit for missing or broken links."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError, ProsocialError, UnknownNameError
from prosocial.core.signing.envelope import BrokenSignature, Statement, unseal
from prosocial.core.signing.keys import TrustedKey
from prosocial.core.signing.model_signature import SIGNATURE_FILE, FolderDigest, check_signature, made_statements
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.edits.record import RECORD_NAME, read_record
from prosocial.export.bundle_files.manifest import MANIFEST_FILE

from .claims import CLAIMS, Claim, claims, statement_path, weights_fingerprint

SCHEMA = "prosocial.chain/1"
SIGNATURE, BASE, CHECKPOINT = "signature", "base", "checkpoint"


class LinkState(StrEnum):
    """The state of a link.

    Attributes:
        VALID: signed by a trusted key, and consistent with the files.
        NOT_CHECKED: a signed statement names a base or checkpoint that was not given.
        MISSING: there is no statement.
        DOUBTFUL: the statement is signed, but the verification it reports was inconclusive.
        BROKEN: the files or the statement were changed, the signature is not by a trusted key, or it reports a failure.
    """

    VALID = "valid"
    NOT_CHECKED = "not checked"
    MISSING = "missing"
    DOUBTFUL = "doubtful"
    BROKEN = "broken"


@dataclass(frozen=True)
class Link:
    """One link of the chain.

    Attributes:
        name: name of the link.
        state: its state.
        told: explanation of the state, in words.
        signed_by: name of the key that signed it; None if not signed.
    """

    name: str
    state: LinkState
    told: str
    signed_by: str | None = None


@dataclass(frozen=True)
class ChainReport:
    """The result of checking a chain.

    Attributes:
        folder: name of the folder.
        root: digest over all files, which the signature covers.
        links: the links, in order from base to audit.
        allowed: names of links that may be missing.
    """

    folder: str
    root: str
    links: tuple[Link, ...]
    allowed: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`fail` if a link is broken, `cannot say` if one is missing or doubtful, otherwise `pass`."""
        states = [link.state for link in self.links if not self._is_excused(link)]
        if LinkState.BROKEN in states:
            return "fail"
        return "pass" if {*states} == {LinkState.VALID} else "cannot say"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        links = [asdict(link) | {"state": str(link.state)} for link in self.links]
        named = {"schema": SCHEMA, "folder": self.folder, "root": self.root, "verdict": self.verdict}
        return {**named, "links": links, "allowed_missing": list(self.allowed)}

    def _is_excused(self, link: Link) -> bool:
        return link.state is LinkState.NOT_CHECKED or (link.state is LinkState.MISSING and link.name in self.allowed)


def check_chain(
    folder: Path | str,
    *,
    keys: Sequence[TrustedKey],
    base: Path | str | None = None,
    checkpoint: Path | str | None = None,
    allow_missing: Collection[str] = (),
) -> ChainReport:
    """Check the chain of signed statements about a folder; every file in it is read.

    The contents of the folder determine the required links: an edit record requires statements of the edit and of an
    audit, a manifest requires statements of the export and of parity.

    Args:
        folder: any signed folder.
        keys: trusted public keys; each link must be signed by one of them.
        base: the edited checkpoint's base; its fingerprint is compared with the record's.
        checkpoint: checkpoint that a bundle was exported from; its weights and signature are checked.
        allow_missing: links (edit, export, parity, audit) that may be missing; a broken link always fails.

    Raises:
        InputError: no key is given, a link is unknown, or the folder does not refer to a given base or checkpoint.
        ArtefactError: the folder does not exist or is empty.
    """
    if not keys:
        raise InputError("a chain should be checked with a trusted key, found none: give --key")
    for name in allow_missing:
        if name not in CLAIMS:
            raise UnknownNameError("link", name, CLAIMS)
    folder = Path(folder)
    digest = FolderDigest.of(folder)
    links = [
        *_base(folder, digest, None if base is None else Path(base)),
        *_checkpoint(folder, digest, None if checkpoint is None else Path(checkpoint), keys),
        _signature(folder, digest, keys),
        *(_stated(name, claim, folder, keys) for name, claim in claims(folder, digest).items()),
    ]
    named = _named_statements(folder, keys)
    links = [_removed(link) if link.name in named and link.state is LinkState.MISSING else link for link in links]
    return ChainReport(digest.name, digest.root, tuple(links), tuple(sorted(allow_missing)))


def _signature(folder: Path, digest: FolderDigest, keys: Sequence[TrustedKey], name: str = SIGNATURE) -> Link:
    if not (folder / SIGNATURE_FILE).is_file():
        return Link(name, LinkState.MISSING, f"there is no {SIGNATURE_FILE}: the files are not signed")
    try:
        signer = check_signature(folder, digest, keys)
    except BrokenSignature as broken:
        return Link(name, LinkState.BROKEN, str(broken))
    return Link(name, LinkState.VALID, f"{len(digest.files)} files as signed", signer.name)


def _named_statements(folder: Path, keys: Sequence[TrustedKey]) -> frozenset[str]:
    """Return the statements that the folder's signature names; none if it is not by a trusted key."""
    try:
        return made_statements(unseal(folder / SIGNATURE_FILE, keys)[0])
    except BrokenSignature:
        return frozenset()


def _removed(link: Link) -> Link:
    return replace(link, told=f"{link.told}, though {SIGNATURE_FILE} names it: it was removed")


def _stated(name: str, claim: Claim, folder: Path, keys: Sequence[TrustedKey]) -> Link:
    path = statement_path(folder, name)
    if not path.is_file():
        return Link(name, LinkState.MISSING, f"there is no {path.parent.name}/{path.name}")
    try:
        stated, signer = unseal(path, keys)
        stated, expected = _called(stated, folder.resolve().name), claim()
    except (BrokenSignature, ProsocialError) as broken:
        return Link(name, LinkState.BROKEN, str(broken))
    if stated != expected:
        where = _first_difference(expected, stated)
        return Link(name, LinkState.BROKEN, f"{path.name}: its {where} differs from this folder's")
    return _judge(name, stated, signer)


def _called(stated: Statement, name: str) -> Statement:
    """Return the statement with the folder's name replaced, because a downloaded folder may have another name."""
    match stated:
        case {"subject": [{"name": str(), **rest}, *others]}:
            return stated | {"subject": [{"name": name, **rest}, *others]}
    return stated


def _judge(name: str, stated: Statement, signer: TrustedKey) -> Link:
    result = stated["predicate"].get("result", "PASSED")
    if result == "PASSED":
        return Link(name, LinkState.VALID, "matches these files", signer.name)
    state = LinkState.DOUBTFUL if result == "WARNED" else LinkState.BROKEN
    tests = stated["predicate"]["failedTests"] + stated["predicate"]["warnedTests"]
    return Link(name, state, f"the signed result is {result}: {', '.join(tests)}", signer.name)


def _base(folder: Path, digest: FolderDigest, base: Path | None) -> list[Link]:
    if RECORD_NAME not in digest.files:
        if base is not None:
            raise InputError(f"{folder} should contain {RECORD_NAME} to be compared with a base: omit --base")
        return []
    try:
        recorded = read_record(folder).base.fingerprint
    except ProsocialError as broken:
        return [Link(BASE, LinkState.BROKEN, str(broken))]
    return [_same_weights(BASE, recorded, base)]


def _checkpoint(folder: Path, digest: FolderDigest, checkpoint: Path | None, keys: Sequence[TrustedKey]) -> list[Link]:
    if MANIFEST_FILE not in digest.files:
        if checkpoint is not None:
            raise InputError(
                f"{folder} should be a bundle to be compared with a checkpoint, but has no {MANIFEST_FILE}"
            )
        return []
    try:
        recorded = weights_fingerprint(folder, digest)
    except ProsocialError as broken:
        return [Link(CHECKPOINT, LinkState.BROKEN, str(broken))]
    weights = _same_weights(CHECKPOINT, recorded, checkpoint)
    if checkpoint is None or weights.state is LinkState.BROKEN:
        return [weights]
    return [weights, _signature(checkpoint, FolderDigest.of(checkpoint), keys, f"{CHECKPOINT}'s {SIGNATURE}")]


def _same_weights(name: str, recorded: str, given: Path | None) -> Link:
    if given is None:
        return Link(name, LinkState.NOT_CHECKED, f"fingerprint {recorded[:16]}; give --{name} to compare it")
    actual = fingerprint(given)
    if actual != recorded:
        return Link(name, LinkState.BROKEN, f"should have fingerprint {recorded[:16]}, {given.name} has {actual[:16]}")
    return Link(name, LinkState.VALID, f"{given.name} has fingerprint {actual[:16]}")


def _first_difference(expected: Any, stated: Any, where: str = "") -> str:
    """Return the path of the first value that differs."""
    if isinstance(expected, dict) and isinstance(stated, dict):
        for key in sorted({*expected, *stated}, key=str):
            if expected.get(key) != stated.get(key):
                return _first_difference(expected.get(key), stated.get(key), f"{where}.{key}" if where else str(key))
    if isinstance(expected, list) and isinstance(stated, list) and len(expected) == len(stated):
        for at, (left, right) in enumerate(zip(expected, stated, strict=True)):
            if left != right:
                return _first_difference(left, right, f"{where}[{at}]")
    return where
