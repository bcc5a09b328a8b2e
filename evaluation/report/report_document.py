"""The report as one JSON document, with exactly what the terminal and the page show."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from prosocial.core.errors import ArtefactError
from prosocial.core.files import replacing_report, write_json, write_text

from ..comparison.preferences import PreferenceEffect
from ..comparison.report import ComparisonReport
from .headline import headline
from .methods import methods

SCHEMA = "prosocial.report/1"
PARITY_SCHEMA = "prosocial.parity_report/3"
JSON_FILE = "report.json"
PAGE_FILE = "report.html"
Fact = str | int | float | bool | None
_ABSOLUTE = re.compile(r"^(?:~|[A-Za-z]:)?[\\/]")


class ParityPart(Protocol):
    """A judged comparison of a bundle with its reference, such as `prosocial.verify.ParityReport`."""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON."""
        ...


def write_report(
    out: Path | str,
    *,
    title: str,
    comparison: ComparisonReport,
    preferences: Sequence[PreferenceEffect] = (),
    parity: ParityPart | Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    samples: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Fact] | None = None,
    probes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write `report.json` and the self-contained `report.html` into a folder, and return the document.

    Args:
        out: output folder, created if missing; an existing report is replaced.
        title: title of the report.
        comparison: result of `compare`.
        preferences: result of `preference_effects`.
        parity: result of `measure_parity`, or its JSON.
        calibration: result of `prosocial.evaluation.gate.measure_calibration`; if known, with `threshold` (the tests
            that the gate's threshold passed) and `scaling`.
        samples: result of `choose_samples`.
        facts: further facts by name, such as recipe, model, scale, seeds and timings; absolute paths are reduced to
            their last part.
        probes: result of `every_probe`, for the table of all probes.

    Raises:
        ArtefactError: the JSON given for `parity` has another schema.
        StorageError: the folder cannot be written.
    """
    from .report_page import render_page

    out = Path(out)
    document = assemble(
        title=title,
        comparison=comparison,
        preferences=preferences,
        parity=parity,
        calibration=calibration,
        samples=samples,
        facts=facts,
        probes=probes,
    )
    page = render_page(document)
    with replacing_report(out, JSON_FILE):
        write_text(out / PAGE_FILE, page)
        write_json(out / JSON_FILE, document)
    return document


def assemble(
    *,
    title: str,
    comparison: ComparisonReport,
    preferences: Sequence[PreferenceEffect] = (),
    parity: ParityPart | Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    samples: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, Fact] | None = None,
    probes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the document that `write_report` writes, as plain JSON; deterministic."""
    measured = comparison.to_json()
    compared = _parity_json(parity)
    return {
        "schema": SCHEMA,
        "title": title,
        "headline": headline(measured, compared, calibration),
        "facts": {name: _without_folder(value) for name, value in (facts or {}).items()},
        "comparison": measured,
        "preferences": [effect.to_json() for effect in preferences],
        "parity": compared,
        "calibration": None if calibration is None else dict(calibration),
        "samples": [dict(one) for one in samples],
        "probes": [dict(one) for one in probes],
        "methods": methods(measured, compared, calibration),
    }


def _parity_json(parity: ParityPart | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if parity is None:
        return None
    given = dict(parity) if isinstance(parity, Mapping) else parity.to_json()
    if given.get("schema") != PARITY_SCHEMA:
        raise ArtefactError(
            f"parity should have schema {PARITY_SCHEMA!r}, found {given.get('schema')!r}: run verify again"
        )
    return given


def _without_folder(value: Fact) -> Fact:
    """Reduce an absolute path to its last part: reports are published, and local paths are private."""
    if isinstance(value, Path) or (isinstance(value, str) and _ABSOLUTE.match(value)):
        return re.split(r"[\\/]", str(value).rstrip("\\/"))[-1]
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value
