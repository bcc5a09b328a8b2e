"""The free memory is that of the machine, or of the smallest control group around the process."""

from pathlib import Path

import pytest

from prosocial.core.cores import free_memory_bytes, is_out_of_memory, memory_bytes

MIB = 1 << 20


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_the_machine_has_no_more_free_memory_than_memory() -> None:
    assert 0 < free_memory_bytes() <= memory_bytes()


@pytest.mark.parametrize(
    ("cgroup", "files", "mib"),
    [
        ("0::/\n", {}, 800),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/b/memory.current": "1"}, 800),
        ("0::/a/b\n", {"a/memory.max": f"{300 * MIB}", "a/memory.current": f"{200 * MIB}"}, 100),
        (
            "0::/a\n",
            {
                "a/memory.max": f"{300 * MIB}",
                "a/memory.current": f"{200 * MIB}",
                "a/memory.stat": f"anon 5\ninactive_file {50 * MIB}\n",
            },
            150,
        ),
        ("0::/a\n", {"a/memory.max": f"{MIB}", "a/memory.current": f"{2 * MIB}"}, 0),
        (
            "4:memory:/a\n1:cpu:/\n",
            {
                "memory/a/memory.limit_in_bytes": f"{60 * MIB}",
                "memory/a/memory.usage_in_bytes": f"{20 * MIB}",
                "a/memory.limit_in_bytes": "0",
                "a/memory.usage_in_bytes": "0",
            },
            40,
        ),
    ],
)
def test_the_smallest_group_bounds_what_is_free(tmp_path: Path, cgroup: str, files: dict[str, str], mib: int) -> None:
    write(tmp_path, {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable: {800 * 1024} kB\n", "proc/self/cgroup": cgroup})
    write(tmp_path / "groups", files)

    assert free_memory_bytes(tmp_path / "proc", tmp_path / "groups") == mib * MIB


def test_a_system_without_these_files_has_its_whole_memory(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path, tmp_path) == memory_bytes()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_failed_allocation_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected
