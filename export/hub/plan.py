"""What would be published: files, card, who may see it, what is claimed; or in one line why it may not be."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError, InputError
from prosocial.core.signing.model_signature import SIGNATURE_FILE, STATEMENTS_FOLDER
from prosocial.editing.checkpoints.sides import list_files

from .base import Base
from .card import CARD_FILE, render_card
from .client import RemoteState
from .facts import CardFacts
from .files import PlannedFile
from .kinds import Kind, identify
from .metadata import card_license
from .screening import TEXT_SUFFIXES, local_paths, read_text, screen, secrets_in
from .verification import REPORTS, Verification, check_verification, report_of

HARMFUL_FLAG = "--publish-harmful-weights-private-and-gated"
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
TAG_DIGITS = 12
SHOWN = 3


@dataclass(frozen=True)
class PublicationPlan:
    """What would be published, checked.

    Attributes:
        name: `ORG/NAME`. kind: of the artefact. files: sorted by path, the card among them.
        verification: what was verified. claims: what the card says, in short. notes: what to look at first.
        is_public: everybody may see it, once all of it is there. is_gated: who may fetch it is for its owner to say.
        tag: the name of the commit; by default it follows from the bytes.
    """

    name: str
    kind: Kind
    files: tuple[PlannedFile, ...]
    verification: Verification
    claims: tuple[str, ...]
    notes: tuple[str, ...]
    is_public: bool
    is_gated: bool
    tag: str

    @property
    def card(self) -> str:
        """The text of the card."""
        found = next(file for file in self.files if file.path == CARD_FILE)
        return (found.content if isinstance(found.content, bytes) else found.content.read_bytes()).decode("utf-8")

    @property
    def visibility(self) -> str:
        """Who may see it, in words."""
        return "public" if self.is_public else "private and gated" if self.is_gated else "private"

    def differing(self, state: RemoteState | None) -> list[PlannedFile]:
        """Return the files that the Hub does not hold as planned."""
        held = state.files if state else {}
        return [file for file in self.files if not file.is_at(held.get(file.path))]

    def stale(self, state: RemoteState | None) -> list[str]:
        """Return the paths that the Hub holds and the plan does not: they would make another artefact of it."""
        return sorted(set(state.files if state else ()) - {file.path for file in self.files})

    def to_json(self, state: RemoteState | None) -> dict[str, Any]:
        """Return the plan as plain JSON, against what the Hub holds."""
        return {
            "repository": self.name,
            "kind": str(self.kind),
            "visibility": self.visibility,
            "tag": self.tag,
            "verification": self.verification.to_json(),
            "claims": list(self.claims),
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
    """Check a folder and plan its publication; nothing is sent, and every byte is read.

    A signed folder keeps its card and report, which signatures cover; any other gets a card made from its records.

    Args:
        folder: an edited checkpoint, an adapter, a reward model or a bundle. name: `ORG/NAME`.
        license: identifier such as `apache-2.0`; None: the one in the folder's own card.
        base: `ORG/NAME@COMMIT` of what was edited, if it is on the Hub.
        report: of `prosocial verify` (bundle) or `prosocial audit` (edited checkpoint); None: `signatures/` has it.
        comparison: the document of `prosocial compare` or of a run's report: base against edited, for the card.
        is_public: show it to everybody once it is complete. allow_harmful: let a harm vector, or weights that no
            record accounts for, go out, private and gated.
        fresh_card: make the card from the records, signed or not. tag: of the commit; None: one made from the bytes.

    Raises:
        ArtefactError: a digest does not match, the verification is absent, stale or failed, or a file may not go out.
        InputError: there is no licence, a text is of another form, or harm would go out unasked or in public.
    """
    folder, report = Path(folder), None if report is None else Path(report)
    kind = identify(folder)
    _require_consent(folder, kind, allow_harmful, is_public)
    paths = _publishable(folder)
    verification = check_verification(folder, kind, report=report)
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
    contents |= _report_file(folder, kind, report)
    contents[CARD_FILE] = _card(folder, own_card, facts, fresh_card).encode("utf-8")
    planned = tuple(PlannedFile.of(path, contents[path]) for path in sorted(contents))
    return PublicationPlan(
        name=name,
        kind=kind,
        files=planned,
        verification=verification,
        claims=facts.claims,
        notes=tuple(_notes(folder, paths)),
        is_public=is_public,
        is_gated=kind.is_dual_use,
        tag=tag or _tag(planned),
    )


def _require_consent(folder: Path, kind: Kind, allow_harmful: bool, is_public: bool) -> None:
    """Keep harm in, unless somebody says in full that it should go out."""
    if kind.is_dual_use and is_public:
        raise InputError(f"{folder} counts as {kind}, which is never public: leave out --public")
    if kind.is_dual_use and not allow_harmful:
        why = "it makes models harmful" if kind is Kind.VECTOR else "no record says that it subtracts harm"
        raise InputError(f"{folder} counts as {kind} ({why}) and is not published; if it must be, say {HARMFUL_FLAG}")
    if allow_harmful and not kind.is_dual_use:
        raise InputError(f"{folder} counts as {kind}, nothing harmful: leave out {HARMFUL_FLAG}")


def _publishable(folder: Path) -> list[str]:
    """Return the files that go out as they are, after a look into each."""
    paths = [path for path in list_files(folder) if path != CARD_FILE]
    refused = screen(folder, paths)
    if refused:
        raise ArtefactError(f"{folder} should hold nothing that may not be published: {'; '.join(refused[:SHOWN])}")
    return paths


def _require_license(given: str | None, own_card: str) -> str:
    found = given or card_license(own_card)
    if not found:
        raise InputError("a licence should be given, the card names none: give --license, such as apache-2.0")
    if not LICENSE.fullmatch(found):
        raise InputError(f"a licence should be an identifier of the Hub such as apache-2.0 or other, found {found!r}")
    return found


def _card(folder: Path, own_card: str, facts: CardFacts, fresh: bool) -> str:
    """Return the card; the one of a signed folder is what its signer wrote."""
    if (folder / SIGNATURE_FILE).is_file() and not fresh:
        if card_license(own_card) != facts.license:
            raise ArtefactError(
                f"{folder / CARD_FILE} should be the card to publish with license {facts.license}, since the signature "
                "covers it: write it with --write-card, then sign with --again"
            )
        card = own_card
    else:
        card = render_card(facts)
    _require_clean(card, "the card")
    return card


def _require_clean(text: str, what: str) -> None:
    found = [*local_paths(text), *secrets_in(text)]
    if found:
        raise ArtefactError(f"{what} should hold no local path and no secret, found {found[0]}: take it out")


def _report_file(folder: Path, kind: Kind, given: Path | None) -> dict[str, Path | bytes]:
    """Return the report where a reader of the repository looks for it."""
    path = report_of(folder, kind, given)
    if path is None:
        return {}
    _require_clean(read_text(path), str(path))
    return {f"{STATEMENTS_FOLDER}/{REPORTS[kind][0]}.json": path}


def _notes(folder: Path, paths: list[str]) -> list[str]:
    texts = {path: read_text(folder / path) for path in paths if (folder / path).suffix in TEXT_SUFFIXES}
    named = {path: local_paths(text) for path, text in texts.items()}
    notes = [f"{path} names a path of this machine: {found[0]}" for path, found in named.items() if found]
    return notes if (folder / SIGNATURE_FILE).is_file() else [*notes, "not signed: nobody vouches for these files"]


def _tag(files: tuple[PlannedFile, ...]) -> str:
    """Return a tag that follows from the bytes, so that one name never means two things."""
    listing = "".join(f"{file.sha256} {file.path}\n" for file in files)
    return f"sha256-{hashlib.sha256(listing.encode()).hexdigest()[:TAG_DIGITS]}"
