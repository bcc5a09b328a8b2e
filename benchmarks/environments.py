"""Creates isolated environments for the compared systems with pip, at the versions of constraints.txt."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TORCH = "torch==2.13.0"


def environment(folder: Path, *requirements: str | Path) -> Path:
    """Return the interpreter of an environment with only the requirements and their dependencies, without pip.

    An existing environment in the folder is reused if it was completed with the same requirements.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    required, finished = "\n".join(map(str, requirements)), folder / "finished.txt"
    if not (finished.is_file() and finished.read_text(encoding="utf-8") == required):
        venv.create(folder, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "-c", CONSTRAINTS]
        subprocess.run([*pip, *requirements], check=True)
        finished.write_text(required, encoding="utf-8")
    return python
