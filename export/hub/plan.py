"""The publication plan: files, model card, visibility and claims; or an error that says why it is refused."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.files import require_no_links
from prosocial.core.redaction import secrets_in
from prosocial.core.signing.envelope import unverified
from prosocial.core.signing.model_signature import SIGNATURE_FILE, STATEMENTS_FOLDER, signed_files
from prosocial.editing.checkpoints.sides import list_files

from ..bundle_files.manifest import MANIFEST_FILE, read_manifest
from .base import Base
from .card import CARD_FILE, render_card
from .client import RemoteState
from .facts import CardFacts
from .files import PlannedFile
from .kinds import Kind, identify
from .metadata import card_license
from .screening import TEXT_SUFFIXES, code_keys, is_publishable, local_paths, read_text, screen
from .verification import REPORTS, Verification, check_verification, report_of

HARMFUL_FLAG = "--publish-harmful-weights-private-and-gated"
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
TAG_DIGITS = 12
SHOWN = 3


@dataclass(frozen=True)
class PublicationPlan:
    """A checked publication plan.

    Attributes:
        name: repository, `ORG/NAME`.
        kind: kind of the artefact.
        files: files to publish, sorted by path, including the card.
        verification: result of the verification.
        claims: short list of the card's claims.
        left_out: paths of the files of the folder that are not published, because artefacts have no such files.
        notes: points to look at before publishing.
        is_public: whether the repository becomes public once it is complete.
        is_gated: whether the owner must approve each download.
        tag: tag of the commit; by default derived from the bytes.
    """

    name: str
    kind: Kind
    files: tuple[PlannedFile, ...]
    verification: Verification
    claims: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    is_public: bool
    is_gated: bool
    tag: str

    @property
    def card(self) -> str:
        """The text of the card."""
        card = next(file for file in self.files if file.path == CARD_FILE)
        return (card.content if isinstance(card.content, bytes) else card.content.read_bytes()).decode("utf-8")

    @property
    def visibility(self) -> str:
        """The visibility in words: public, private, or private and gated."""
        return "public" if self.is_public else "private and gated" if self.is_gated else "private"

    def differing(self, state: RemoteState | None) -> list[PlannedFile]:
        """Return the files that are missing or different on the Hub."""
        held = state.files if state else {}
        return [file for file in self.files if not file.is_at(held.get(file.path))]

    def stale(self, state: RemoteState | None) -> list[str]:
        """Return the paths on the Hub that are not in the plan, which publication deletes."""
        return sorted(set(state.files if state else ()) - {file.path for file in self.files})

    def to_json(self, state: RemoteState | None) -> dict[str, Any]:
        """Return the plan as plain JSON, with the changes to the repository's current state."""
        return {
            "repository": self.name,
            "kind": str(self.kind),
            "visibility": self.visibility,
            "tag": self.tag,
            "verification": self.verification.to_json(),
            "claims": list(self.claims),
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "parent": state.commit if state else None,
            "size_bytes": sum(file.size_bytes for file in self.files),
            "files": [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in self.files],
            "to_send": [file.path for file in self.differing(state)],
            "to_delete": self.stale(state),
            "card": self.card,
        }


def plan_publication(
    folder: Path | str,
    name: str,
    *,
    license: str | None = None,
    base: str | None = None,
    report: Path | str | None = None,
    comparison: Mapping[str, Any] | None = None,
    is_public: bool = False,
    allow_harmful: bool = False,
    fresh_card: bool = False,
    tag: str | None = None,
) -> PublicationPlan:
    """Check a folder and plan its publication; reads every file and sends nothing.

    A signed folder keeps its card and report, because the signature covers them. Any other folder gets a card made from
    its records. Code, pictures, YAML, PDF and other files that no artefact has are left out, and listed in the plan; a
    record that lists them stays valid without them.

    Args:
        folder: folder of an edited checkpoint, an adapter, a reward model or a bundle.
        name: repository, `ORG/NAME`.
        license: licence identifier such as `apache-2.0`; None for that in the folder's card.
        base: `ORG/NAME@COMMIT` of the base model, if it is on the Hub.
        report: path of the report of `prosocial verify` (bundle) or `prosocial audit` (edited checkpoint); None for
            that in `signatures/`.
        comparison: result of `prosocial compare` or of a run's report on base and edited model, for the card.
        is_public: make the repository public once it is complete.
        allow_harmful: allow the publication of a harm vector, or of weights without a record; private and gated.
        fresh_card: make a new card from the records even if the folder is signed.
        tag: tag of the commit; None to derive it from the bytes.

    Raises:
        ArtefactError: a digest does not match, the verification is missing, stale or failed, or a file must not be
            published.
        InputError: there is no licence, `base`, `license` or `name` has another form, or harmful weights would be
            published without consent or publicly.
    """
    folder, report = Path(folder), None if report is None else Path(report)
    kind = identify(folder)
    require_no_links(folder)
    _require_consent(folder, kind, allow_harmful, is_public)
    paths, left_out = _publishable(folder, kind)
    verification = check_verification(folder, kind, report=report, to_be_signed=fresh_card)
    own_card = read_text(folder / CARD_FILE) if (folder / CARD_FILE).is_file() else ""
    facts = CardFacts(
        name=name,
        folder=folder,
        kind=kind,
        license=_require_license(license, own_card),
        base=Base.parse(base) if base else None,
        verification=verification,
        comparison=comparison,
    )
    contents: dict[str, Path | bytes] = {path: folder / path for path in paths}
    contents |= _report_file(report_of(folder, kind, report, to_be_signed=fresh_card), kind)
    contents[CARD_FILE] = _card(folder, own_card, facts, fresh_card).encode("utf-8")
    _require_covered(folder, contents, fresh_card)
    planned = tuple(PlannedFile.of(path, contents[path]) for path in sorted(contents))
    return PublicationPlan(
        name=name,
        kind=kind,
        files=planned,
        verification=verification,
        claims=facts.claims,
        left_out=tuple(left_out),
        notes=tuple(_notes(folder, paths)),
        is_public=is_public,
        is_gated=kind.is_dual_use,
        tag=tag or _tag(planned),
    )


def _require_consent(folder: Path, kind: Kind, allow_harmful: bool, is_public: bool) -> None:
    """Refuse harmful weights without explicit consent, and in public in any case."""
    if kind.is_dual_use and is_public:
        raise InputError(f"{folder} counts as {kind}, which is never public: omit --public")
    if kind.is_dual_use and not allow_harmful:
        why = "it makes models harmful" if kind is Kind.VECTOR else "no record says that it subtracts harm"
        raise InputError(f"{folder} counts as {kind} ({why}) and is not published; if it must be, give {HARMFUL_FLAG}")
    if allow_harmful and not kind.is_dual_use:
        raise InputError(f"{folder} counts as {kind}, which is not harmful: omit {HARMFUL_FLAG}")


def _publishable(folder: Path, kind: Kind) -> tuple[list[str], list[str]]:
    """Return the paths of the files to publish unchanged, after screening each, and of those to leave out."""
    paths = [path for path in list_files(folder) if path != CARD_FILE]
    kept = [path for path in paths if is_publishable(path)]
    left_out = sorted(set(paths) - set(kept))
    refused = screen(folder, paths if kind is Kind.BUNDLE else kept)
    if kind is Kind.BUNDLE:
        refused += [f"{path} has a file type that no bundle has: export again" for path in left_out]
    if refused:
        raise ArtefactError(f"{folder} should hold only files that may be published: {'; '.join(refused[:SHOWN])}")
    return kept, left_out


def _require_covered(folder: Path, contents: Mapping[str, object], fresh_card: bool) -> None:
    """Refuse a plan without a file that the manifest or the signature lists: nobody could verify the publication."""
    listed = dict.fromkeys(read_manifest(folder)["files"], MANIFEST_FILE) if (folder / MANIFEST_FILE).is_file() else {}
    if (folder / SIGNATURE_FILE).is_file() and not fresh_card:
        listed |= dict.fromkeys(signed_files(unverified(folder / SIGNATURE_FILE)), SIGNATURE_FILE)
    missing = sorted(set(listed) - set(contents))
    if missing:
        by = listed[missing[0]]
        again = "sign again with --again" if by == SIGNATURE_FILE else "export again"
        raise ArtefactError(
            f"{folder / missing[0]} is not published (hidden, or of a type that no artefact has), but {by} lists it: "
            f"delete it and {again}"
        )


def _require_license(given: str | None, own_card: str) -> str:
    licence = given or card_license(own_card)
    if not licence:
        raise InputError("a licence should be given, the card names none: give --license, such as apache-2.0")
    if not LICENSE.fullmatch(licence):
        raise InputError(f"a licence should be an identifier of the Hub such as apache-2.0 or other, found {licence!r}")
    return licence


def _card(folder: Path, own_card: str, facts: CardFacts, fresh: bool) -> str:
    """Return the card: that of a signed folder unless `fresh`, else one made from the facts."""
    if (folder / SIGNATURE_FILE).is_file() and not fresh:
        if card_license(own_card) != facts.license:
            raise ArtefactError(
                f"{folder / CARD_FILE} should name the license {facts.license}, because the signature covers it: "
                "write it with --write-card, then sign with --again"
            )
        card = own_card
    else:
        card = render_card(facts)
    _require_clean(card, "the card")
    return card


def _require_clean(text: str, what: str) -> None:
    matches = [*local_paths(text), *secrets_in(text)]
    if matches:
        raise ArtefactError(f"{what} should hold no local path and no secret, found {matches[0]}: remove it")


def _report_file(path: Path | None, kind: Kind) -> dict[str, Path | bytes]:
    """Return the report by its path in the repository; empty if the kind needs none."""
    if path is None:
        return {}
    _require_clean(read_text(path), str(path))
    return {f"{STATEMENTS_FOLDER}/{REPORTS[kind][0]}.json": path}


def _notes(folder: Path, paths: list[str]) -> list[str]:
    texts = {path: read_text(folder / path) for path in paths if (folder / path).suffix in TEXT_SUFFIXES}
    named = {path: local_paths(text) for path, text in texts.items()}
    notes = [f"{path} names a path of this machine: {matches[0]}" for path, matches in named.items() if matches]
    notes += [
        f"{path} names code ({', '.join(keys)}), which is not published: load it with trust_remote_code=False"
        for path in paths
        if (keys := code_keys(folder / path))
    ]
    return notes if (folder / SIGNATURE_FILE).is_file() else [*notes, "not signed: nobody vouches for these files"]


def _tag(files: tuple[PlannedFile, ...]) -> str:
    """Return a tag derived from the bytes, so that a tag always means the same files."""
    listing = "".join(f"{file.sha256} {file.path}\n" for file in files)
    return f"sha256-{hashlib.sha256(listing.encode()).hexdigest()[:TAG_DIGITS]}"
