"""The number of CPU cores that this process may use."""

import os


def usable_cores() -> int:
    """Return the number of cores that this process may run on, which a container can restrict."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not report the affinity
        return os.cpu_count() or 1
