"""Probes by path or by name: our own JSONL, or a public set in the format of its authors."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prosocial.core.errors import InputError, UnknownNameError

from .formats import FORMATS, ProbeFormat
from .probe import Probe, read_probes
from .tables import SUFFIXES, read_table, table_files

FOLDER_VARIABLE = "PROSOCIAL_PROBES"
# Where the sets lie on the Hub; the columns of the files say which set they are.
HUB = {
    "JailbreakBench": "JailbreakBench/JBB-Behaviors",
    "XSTest": "walledai/XSTest",
    "Do-Not-Answer": "LibrAI/do-not-answer",
    "HH-RLHF": "Anthropic/hh-rlhf",
    "CoSApien": "microsoft/CoSApien",
    "CoSAlign-Test": "microsoft/CoSAlign-Test",
}


def load_probes(source: str | Path) -> list[Probe]:
    """Return the probes of a file, a folder, a public set or a dataset of the Hub.

    Args:
        source: a JSONL of ours; a table of a public set; a folder with such tables; the name of a public set, which is
            looked for in the folder that PROSOCIAL_PROBES names, then on the Hub; or the id of a dataset of the Hub.

    Raises:
        InputError: nothing is there, no table of it has a known format, an id occurs twice, or a row is broken.
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
        raise InputError(f"expected probes at {path}: there is no such file")
    raise UnknownNameError("probe set", name, [one.name for one in FORMATS])


def _named(known: ProbeFormat) -> list[Probe]:
    root = os.environ.get(FOLDER_VARIABLE)
    if root:
        if not Path(root).is_dir():
            raise InputError(f"{FOLDER_VARIABLE} should name a folder, found {root}")
        found = _from_folder(Path(root), known)
        if found:
            return found
    if known.name not in HUB:
        raise InputError(
            f"{known.name} should lie in the folder that {FOLDER_VARIABLE} names ({root or 'it is not set'}): get it "
            "from its authors, or give its file"
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
    found = _from_table(path, None)
    if not found:
        known = "; ".join(f"{one.name} ({', '.join(sorted(one.columns))})" for one in FORMATS)
        raise InputError(
            f"{path} should hold probes as JSONL or a public set: no format fits its columns. Known: {known}"
        )
    return _unique(found, path)


def _from_folder(folder: Path, only: ProbeFormat | None) -> list[Probe]:
    found: list[Probe] = []
    for path in table_files(folder):
        for probe in _from_table(path, only):
            found.append(probe)
    if not found and only is None:
        raise InputError(f"{folder} should hold a table of a public set: none of {len(table_files(folder))} fits")
    return _unique(found, folder)


def _from_table(path: Path, only: ProbeFormat | None) -> list[Probe]:
    rows = read_table(path)
    found = _format_of(rows[0]) if rows else None
    if found is None or (only is not None and found is not only):
        return []
    probes = []
    for number, row in enumerate(rows):
        try:
            probe = found.probe(row, number)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{path} row {number + 1} should be one of {found.name}: {error!r}") from None
        if probe is not None:
            if not probe.text.strip():
                raise InputError(f"{path} row {number + 1} should hold a request of {found.name}: its text is empty")
            probes.append(probe)
    return probes


def _format_of(row: Mapping[str, Any]) -> ProbeFormat | None:
    return next((one for one in FORMATS if one.columns <= row.keys()), None)


def _unique(probes: Sequence[Probe], where: Path) -> list[Probe]:
    """Return the probes; the same one again (a set in two files) is left out, another under its id is refused."""
    by_id: dict[str, Probe] = {}
    for probe in probes:
        if by_id.setdefault(probe.id, probe).messages != probe.messages:
            raise InputError(f"{where} gives two requests the id {probe.id!r}: read its files one by one")
    return list(by_id.values())


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
