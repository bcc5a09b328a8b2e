"""How many cores this process may use."""

import os
import sys


def usable_cores() -> int:
    """Return the number of cores that the scheduler may give this process, which a container can make fewer."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
