"""What a run costs, and how to say it: memory, seconds, bytes."""

import re
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """Return the highest resident memory of this process plus that of its largest child, 0 where it is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS and KiB on Linux
    own = _high_water_mark_kib() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + children) * unit


def _high_water_mark_kib() -> int:
    """Return this process's own peak where Linux tells it, else 0: its getrusage starts at the peak of the parent."""
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def say_seconds(seconds: float) -> str:
    """Return a duration for people: `0.4 s`, `12.3 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def say_bytes(n_bytes: int) -> str:
    """Return a size for people in powers of 1000: `912 B`, `3.4 MB`, `16.1 GB`."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
