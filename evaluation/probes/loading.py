"""Loading probes by path or name: JSONL of this package, or a public set in its authors' format."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError, UnknownNameError

from .formats import FORMATS, ProbeFormat
from .probe import Probe, read_probes
from .tables import SUFFIXES, read_table, table_files

FOLDER_VARIABLE = "PROSOCIAL_PROBES"
# Hub ids of the sets; the format is recognised by the columns of the files.
HUB = {
    "JailbreakBench": "JailbreakBench/JBB-Behaviors",
    "XSTest": "walledai/XSTest",
    "Do-Not-Answer": "LibrAI/do-not-answer",
    "HH-RLHF": "Anthropic/hh-rlhf",
    "CoSApien": "microsoft/CoSApien",
    "CoSAlign-Test": "microsoft/CoSAlign-Test",
}


def load_probes(source: str | Path) -> list[Probe]:
    """Return the probes of a file, a folder, a public set or a Hub dataset.

    Args:
        source: JSONL file of probes; table of a public set; folder of such tables; name of a public set, which is
            searched in the folder PROSOCIAL_PROBES, then on the Hub; or id of a Hub dataset.

    Raises:
        InputError: the source does not exist, no table has a known format, an id occurs twice, or a row is invalid.
        UnknownNameError: there is no probe set of that name.
    """
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, None)
    if path.is_file():
        return _from_file(path)
    name = str(source)
    known = next((one for one in FORMATS if _plain(one.name) == _plain(name)), None)
    if known is not None:
        return _named(known)
    if name.count("/") == 1 and not name.endswith(SUFFIXES):
        return _from_folder(_from_hub(name), None)
    if "/" in name or path.suffix:
        raise InputError(f"{path} should be a file or folder of probes, but does not exist")
    raise UnknownNameError("probe set", name, [one.name for one in FORMATS])


def _named(known: ProbeFormat) -> list[Probe]:
    root = os.environ.get(FOLDER_VARIABLE)
    if root:
        if not Path(root).is_dir():
            raise InputError(f"{FOLDER_VARIABLE} should name a folder, found {root}")
        probes = _from_folder(Path(root), known)
        if probes:
            return probes
    if known.name not in HUB:
        raise InputError(
            f"{known.name} should be in the folder {FOLDER_VARIABLE} ({root or 'not set'}): get it from its authors, "
            "or give the path of its file"
        )
    return _from_folder(_from_hub(HUB[known.name]), known)


def _from_hub(identity: str) -> Path:
    from huggingface_hub import snapshot_download

    from prosocial.editing.checkpoints.hub import hub_errors

    patterns = [f"*{suffix}" for suffix in SUFFIXES]
    with hub_errors(identity):
        return Path(snapshot_download(identity, repo_type="dataset", allow_patterns=patterns))


def _from_file(path: Path) -> list[Probe]:
    if path.suffix.lower() == ".jsonl":
        first = next((row for row in read_table(path)), {})
        if "kind" in first or _format_of(first) is None:
            return read_probes(path)
    probes = _from_table(path, None)
    if not probes:
        known = "; ".join(f"{one.name} ({', '.join(sorted(one.columns))})" for one in FORMATS)
        raise InputError(
            f"{path} should contain probes as JSONL or a public set, but no format fits its columns. Known: {known}"
        )
    return _unique(probes, path)


def _from_folder(folder: Path, only: ProbeFormat | None) -> list[Probe]:
    probes: list[Probe] = []
    for path in table_files(folder):
        for probe in _from_table(path, only):
            probes.append(probe)
    if not probes and only is None:
        raise InputError(f"{folder} should contain a table of a public set: none of {len(table_files(folder))} fits")
    return _unique(probes, folder)


def _from_table(path: Path, only: ProbeFormat | None) -> list[Probe]:
    rows = read_table(path)
    table_format = _format_of(rows[0]) if rows else None
    if table_format is None or (only is not None and table_format is not only):
        return []
    probes = []
    for number, row in enumerate(rows):
        try:
            probe = table_format.probe(row, number)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{path} row {number + 1} should be a row of {table_format.name}: {error!r}") from None
        if probe is not None:
            if not probe.text.strip():
                raise InputError(
                    f"{path} row {number + 1} should have a request of {table_format.name}: its text is empty"
                )
            probes.append(probe)
    return probes


def _format_of(row: Mapping[str, Any]) -> ProbeFormat | None:
    return next((one for one in FORMATS if one.columns <= row.keys()), None)


def _unique(probes: Sequence[Probe], where: Path) -> list[Probe]:
    """Return the probes without repetitions of equal ones; raise InputError if two different ones share an id."""
    by_id: dict[str, Probe] = {}
    for probe in probes:
        if by_id.setdefault(probe.id, probe).messages != probe.messages:
            raise InputError(f"{where} should have unique ids, found {probe.id!r} twice: load its files one by one")
    return list(by_id.values())


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
