"""The files of a comparison: the report as JSON and HTML, and the measurements behind it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prosocial.core.files import replacing_report, write_json, write_text

from .measurement import Measurement, write_measurement
from .parity_page import render_parity

JSON_FILE = "parity.json"
PAGE_FILE = "parity.html"
MEASUREMENTS_FILE = "measurements.npz"


def write_parity(out: Path, measurement: Measurement, document: Mapping[str, Any]) -> None:
    """Write the three files into a folder, the JSON last; existing files are replaced.

    Raises:
        StorageError: the folder cannot be written.
    """
    with replacing_report(out, JSON_FILE):
        write_text(out / PAGE_FILE, render_parity(document))
        write_measurement(out / MEASUREMENTS_FILE, measurement)
        write_json(out / JSON_FILE, document)
