"""The CPU cores and the memory that this process may use."""

import os
import re
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
CGROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))  # version 2, 1


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


def free_memory_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return the bytes that this process can still allocate: what the machine has left, or its container, if less.

    Caches of files count as free. Where the system reports no free memory (macOS, Windows) this is `memory_bytes`.

    Args:
        proc: folder of the kernel's files on processes.
        cgroups: folder of the control groups, versions 1 and 2.
    """
    available = re.search(r"MemAvailable:\s+(\d+) kB", _text(proc / "meminfo"))
    free = memory_bytes() if available is None else 1024 * int(available[1])
    return max(0, min([free, *_left_in_groups(proc, cgroups)]))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that an allocation failed, on any device.

    Examples:
        >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
        True
    """
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(part in str(error) for part in words)
    )


def _left_in_groups(proc: Path, cgroups: Path) -> list[int]:
    """Return what each control group of this process, and each group around it, may still allocate."""
    left = []
    for group in _memory_groups(proc, cgroups):
        for names in CGROUP_FILES:
            limit, usage = (_text(group / name).strip() for name in names)
            if limit.isdecimal() and usage.isdecimal():
                left.append(int(limit) - int(usage) + _file_cache(group))
    return left


def _memory_groups(proc: Path, cgroups: Path) -> list[Path]:
    """Return the folders of the control groups that count this process's memory, inner ones first."""
    folders: list[Path] = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroups / controllers  # version 2 has one tree without a name
        inner = root / path.lstrip("/")
        folders += [group for group in (inner, *inner.parents) if group.is_relative_to(root)]
    return folders


def _file_cache(group: Path) -> int:
    """Return the bytes of cached files that count as used in a control group but can be dropped."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)", _text(group / "memory.stat"), re.MULTILINE)
    return int(found[1]) if found else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
