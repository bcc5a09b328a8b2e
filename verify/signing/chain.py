"""The chain from base to audit: base, edit, checkpoint, bundle, parity, audit; which link is missing or broken?"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError, ProsocialError, UnknownNameError
from prosocial.core.signing.envelope import BrokenSignature, Statement, unseal
from prosocial.core.signing.keys import TrustedKey
from prosocial.core.signing.model_signature import SIGNATURE_FILE, FolderDigest, check_signature
from prosocial.editing.checkpoints.fingerprint import fingerprint
from prosocial.editing.edits.record import RECORD_NAME, read_record
from prosocial.export.bundle_files.manifest import MANIFEST_FILE

from .claims import CLAIMS, Claim, claims, statement_path, weights_fingerprint

SCHEMA = "prosocial.chain/1"
SIGNATURE, BASE, CHECKPOINT = "signature", "base", "checkpoint"


class LinkState(StrEnum):
    """What is known of a link.

    Attributes:
        VALID: signed by a trusted key, and true of the bytes that lie here.
        NOT_CHECKED: what it names was not given; a signed statement names it.
        MISSING: there is no statement.
        DOUBTFUL: the statement is signed, and the verification that it states came to no verdict.
        BROKEN: changed, forged, signed by another key, or stating a failure.
    """

    VALID = "valid"
    NOT_CHECKED = "not checked"
    MISSING = "missing"
    DOUBTFUL = "doubtful"
    BROKEN = "broken"


@dataclass(frozen=True)
class Link:
    """One link: what it is called, its state, what to know of it in words, and the key that signed it."""

    name: str
    state: LinkState
    told: str
    signed_by: str | None = None


@dataclass(frozen=True)
class ChainReport:
    """A chain that was walked.

    Attributes:
        folder: its name. root: the digest that its signature is about.
        links: from base to audit. allowed: links that may be missing.
    """

    folder: str
    root: str
    links: tuple[Link, ...]
    allowed: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`fail` where a link is broken, `cannot say` where one is missing or doubtful, else `pass`."""
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
    """Walk the chain of signed statements about a folder; every file of it is read.

    Every link that the folder's contents call for is asked for: an edit record for a statement of the edit and an
    audit, a manifest for statements of the export and of parity.

    Args:
        folder: any signed folder.
        keys: public keys that are trusted; each link needs the signature of one of them.
        base: what was edited; its weights are held against the record.
        checkpoint: what a bundle was exported from; its weights and its own signature are checked.
        allow_missing: links (edit, export, parity, audit) that may be missing; a broken one never passes.

    Raises:
        InputError: no key, an unknown link, or a base or checkpoint that this folder says nothing of.
        ArtefactError: there is no such folder, or nothing in it.
    """
    if not keys:
        raise InputError("a chain needs at least one trusted public key: give --key")
    for name in allow_missing:
        if name not in CLAIMS:
            raise UnknownNameError("link", name, CLAIMS)
    folder = Path(folder)
    found = FolderDigest.of(folder)
    links = [
        *_base(folder, found, None if base is None else Path(base)),
        *_checkpoint(folder, found, None if checkpoint is None else Path(checkpoint), keys),
        _signature(folder, found, keys),
        *(_stated(name, claim, folder, keys) for name, claim in claims(folder, found).items()),
    ]
    return ChainReport(found.name, found.root, tuple(links), tuple(sorted(allow_missing)))


def _signature(folder: Path, found: FolderDigest, keys: Sequence[TrustedKey], name: str = SIGNATURE) -> Link:
    if not (folder / SIGNATURE_FILE).is_file():
        return Link(name, LinkState.MISSING, f"there is no {SIGNATURE_FILE}: nobody vouches for these files")
    try:
        signer = check_signature(folder, found, keys)
    except BrokenSignature as broken:
        return Link(name, LinkState.BROKEN, str(broken))
    return Link(name, LinkState.VALID, f"{len(found.files)} files as signed", signer.name)


def _stated(name: str, claim: Claim, folder: Path, keys: Sequence[TrustedKey]) -> Link:
    path = statement_path(folder, name)
    if not path.is_file():
        return Link(name, LinkState.MISSING, f"there is no {path.parent.name}/{path.name}")
    try:
        said, signer = unseal(path, keys)
        said, expected = _called(said, folder.resolve().name), claim()
    except (BrokenSignature, ProsocialError) as broken:
        return Link(name, LinkState.BROKEN, str(broken))
    if said != expected:
        where = _first_difference(expected, said)
        return Link(name, LinkState.BROKEN, f"{path.name}: states another {where} than this folder holds")
    return _judge(name, said, signer)


def _called(said: Statement, name: str) -> Statement:
    """Return a statement about a folder of that name: a download has another name, what counts is the digest."""
    match said:
        case {"subject": [{"name": str(), **rest}, *others]}:
            return said | {"subject": [{"name": name, **rest}, *others]}
    return said


def _judge(name: str, said: Statement, signer: TrustedKey) -> Link:
    result = said["predicate"].get("result", "PASSED")
    if result == "PASSED":
        return Link(name, LinkState.VALID, "true of these bytes", signer.name)
    state = LinkState.DOUBTFUL if result == "WARNED" else LinkState.BROKEN
    tests = said["predicate"]["failedTests"] + said["predicate"]["warnedTests"]
    return Link(name, state, f"the signed result is {result}: {', '.join(tests)}", signer.name)


def _base(folder: Path, found: FolderDigest, base: Path | None) -> list[Link]:
    if RECORD_NAME not in found.files:
        if base is not None:
            raise InputError(f"{folder} should hold {RECORD_NAME} to be compared with a base: there is none")
        return []
    try:
        recorded = read_record(folder).base.fingerprint
    except ProsocialError as broken:
        return [Link(BASE, LinkState.BROKEN, str(broken))]
    return [_same_weights(BASE, recorded, base)]


def _checkpoint(folder: Path, found: FolderDigest, checkpoint: Path | None, keys: Sequence[TrustedKey]) -> list[Link]:
    if MANIFEST_FILE not in found.files:
        if checkpoint is not None:
            raise InputError(f"{folder} should be a bundle to be compared with a checkpoint: it has no {MANIFEST_FILE}")
        return []
    try:
        recorded = weights_fingerprint(folder, found)
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


def _first_difference(expected: Any, said: Any, where: str = "") -> str:
    """Return the path of the first value that differs."""
    if isinstance(expected, dict) and isinstance(said, dict):
        for key in sorted({*expected, *said}, key=str):
            if expected.get(key) != said.get(key):
                return _first_difference(expected.get(key), said.get(key), f"{where}.{key}" if where else str(key))
    if isinstance(expected, list) and isinstance(said, list) and len(expected) == len(said):
        for at, (left, right) in enumerate(zip(expected, said, strict=True)):
            if left != right:
                return _first_difference(left, right, f"{where}[{at}]")
    return where
