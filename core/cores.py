"""The CPU cores that this process may use, and the memory of the machine."""

import os


def usable_cores() -> int:
    """Return the number of cores that this process may run on, which a container can restrict."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not report the affinity
        return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the machine's memory in bytes; a large number where the system does not report it (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 62
