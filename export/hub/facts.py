"""The facts for a model card: the records of a folder, its verification, and a comparison with the base model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosocial.core.errors import ArtefactError
from prosocial.core.files import read_json
from prosocial.editing.edits.record import RECORD_NAME, EditRecord, read_record
from prosocial.steering.decoding.config import DecodingConfig

from ..bundle_files.manifest import read_manifest
from .base import Base
from .kinds import ADAPTER_RECORD, REWARD_CONFIG, Kind
from .verification import Verification


@dataclass(frozen=True)
class CardFacts:
    """The facts for a model card.

    Attributes:
        name: repository, `ORG/NAME`.
        folder: folder of the artefact.
        kind: kind of the artefact.
        license: licence identifier.
        base: the base model; None if it is not on the Hub.
        verification: result of the verification.
        comparison: result of a comparison of base and edited model; None if there is none.
    """

    name: str
    folder: Path
    kind: Kind
    license: str
    base: Base | None
    verification: Verification
    comparison: Mapping[str, Any] | None

    @property
    def record(self) -> EditRecord | None:
        """The record of the edit; None if the folder has none."""
        return read_record(self.folder) if (self.folder / RECORD_NAME).is_file() else None

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a bundle; None for other kinds."""
        return read_manifest(self.folder) if self.kind is Kind.BUNDLE else None

    @property
    def decoding(self) -> DecodingConfig | None:
        """The decoding config of a steered bundle; None for other artefacts."""
        manifest = self.manifest
        return DecodingConfig.read(self.folder) if manifest and manifest.get("kind") == "steered" else None

    @property
    def claims(self) -> tuple[str, ...]:
        """The claims of the card, one line each."""
        verification = self.verification
        lines = [f"{verification.title}: {verification.verdict} ({verification.told})"]
        lines += [f"{term['method']} vector {term['digest'][:16]} subtracted at {term['scale']}" for term in self.terms]
        return (*lines, *(f"{row['title']}: {row['change']}" for row in comparison_rows(self.comparison)))

    @property
    def terms(self) -> list[dict[str, str]]:
        """The subtracted vectors: method, digest and scale of each."""
        if self.kind is Kind.ADAPTER:
            adapter = read_json(self.folder / ADAPTER_RECORD)
            scales = _scales([f"{scale:g}" for scale in sorted(set(adapter["coefficients"].values()))])
            return [{"method": "harm", "digest": adapter["vector_blake3"], "scale": scales}]
        record = self.record
        return [
            {"method": term.method, "digest": term.blake3, "scale": _scales([one.decimal for one in term.coefficients])}
            for term in (record.terms if record else ())
        ]

    @property
    def base_fingerprint(self) -> str:
        """The fingerprint of the base weights; empty if it is not recorded."""
        for name in (ADAPTER_RECORD, REWARD_CONFIG):
            if (self.folder / name).is_file():
                return str(read_json(self.folder / name)["base_fingerprint"])
        record = self.record
        return record.base.fingerprint if record else ""


def comparison_rows(document: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return a row per metric of a comparison: title, each system's rate, and the change with its interval.

    Raises:
        ArtefactError: the comparison has another structure.
    """
    if document is None:
        return []
    try:
        return _rows(document["comparison"])
    except (KeyError, TypeError, IndexError):
        raise ArtefactError(
            "the comparison should be as `prosocial compare` wrote it, entries are missing: run it again"
        ) from None


def _rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    reference, final = comparison["reference"], comparison["systems"][-1]
    return [
        {
            "name": metric["name"],
            "title": metric["title"],
            "rates": [_share(metric["rates"][system]) for system in comparison["systems"]],
            "change": _points(metric["differences"][final]),
            "value": metric["rates"][final]["estimate"],
        }
        for metric in comparison["metrics"]
        if final != reference and final in metric["differences"]
    ]


def _scales(decimals: Sequence[str]) -> str:
    return decimals[0] if len(set(decimals)) == 1 else f"{len(set(decimals))} scales, {decimals[0]} to {decimals[-1]}"


def _share(interval: Mapping[str, Any]) -> str:
    return f"{_percent(interval['estimate'])} % ({_percent(interval['low'])} to {_percent(interval['high'])})"


def _points(interval: Mapping[str, Any]) -> str:
    return f"{_percent(interval['estimate'], '+')} points ({_percent(interval['low'], '+')} to " + (
        f"{_percent(interval['high'], '+')})"
    )


def _percent(value: float | None, sign: str = "") -> str:
    return "?" if value is None else f"{100 * value:{sign}.1f}"
