"""Measures peak memory and formats durations and sizes."""

import os
import re
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process plus that of its largest child, in bytes; 0 if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS and KiB on Linux
    own = _high_water_mark_kib() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + children) * unit


def _high_water_mark_kib() -> int:
    """Return this process's peak memory on Linux, else 0; on Linux, getrusage includes the peak before exec."""
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    match = re.search(r"^VmHWM:\s*(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def anonymous_bytes(process: int | str = "self") -> int:
    """Return the anonymous resident memory (RssAnon) of a process on Linux: its own, not pages of mapped files; else 0.

    Examples:
        >>> anonymous_bytes() >= 0
        True
    """
    status = Path(f"/proc/{process}/status")
    text = status.read_text() if status.exists() else ""
    match = re.search(r"^RssAnon:\s*(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(match[1]) if match else 0


def say_threads() -> str:
    """Return how many threads compute, as text: they decide the rounding, and so the figures of a training.

    Examples:
        >>> say_threads().startswith("threads: ")
        True
    """
    wanted = os.environ.get("OMP_NUM_THREADS")
    return f"threads: {wanted} (OMP_NUM_THREADS)" if wanted else "threads: one per core (OMP_NUM_THREADS sets them)"


def say_seconds(seconds: float) -> str:
    """Return a duration as text: `0.4 s`, `12.3 s`, `3 min 05 s`, `2 h 07 min`.

    Examples:
        >>> say_seconds(185)
        '3 min 05 s'
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def say_bytes(n_bytes: int) -> str:
    """Return a size as text in powers of 1000: `912 B`, `3.4 MB`, `16.1 GB`.

    Examples:
        >>> say_bytes(3_400_000)
        '3.4 MB'
    """
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
