"""The anonymous memory of a process and its children, as the system reports it (Linux)."""

from pathlib import Path

from prosocial.recipes.workflow.resources import anonymous_bytes


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    try:
        text = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:  # it has ended
        return [pid]
    return [pid, *(each for child in text.split() for each in family(int(child)))]


def family_bytes(pid: int) -> int:
    """Return the anonymous resident memory of a process and its descendants together."""
    return sum(map(anonymous_bytes, family(pid)))
