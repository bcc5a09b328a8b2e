"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """Return the number of cores that the scheduler may give this process, which a container can make fewer."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system tells
        return os.cpu_count() or 1
