"""Report of `cosalign_on_lab.py`: tables with intervals, paired differences, and a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prosocial.editing.files import read_jsonl

BASE, FIVE_SHOT, SFT, DPO = "in context", "in context, 5 shots", "SFT", "SFT + DPO"
GATED, REFUSER = "SFT + DPO + gate", "refuses all"
SYSTEMS = (BASE, FIVE_SHOT, SFT, DPO, GATED, REFUSER)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return what was measured."""
    return read_jsonl(path) if path.is_file() else []


def write_report(path: Path, *, folder: Path | None, draws: int) -> None:
    print(len(read_rows(path)))
