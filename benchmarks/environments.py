"""Environments of their own for what is compared: made from nothing, by pip, with the versions of constraints.txt."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TORCH = "torch==2.13.0"


def environment(folder: Path, *requirements: str | Path) -> Path:
    """Return the interpreter of an environment with the requirements and what they need, and not even pip.

    What lies in the folder is used again if it was finished with the same requirements, else made anew.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted, finished = "\n".join(map(str, requirements)), folder / "finished.txt"
    if not (finished.is_file() and finished.read_text(encoding="utf-8") == wanted):
        venv.create(folder, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "-c", CONSTRAINTS]
        subprocess.run([*pip, *requirements], check=True)
        finished.write_text(wanted, encoding="utf-8")
    return python
