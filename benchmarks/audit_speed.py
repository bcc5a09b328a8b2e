"""Measures the time of an audit at each level, compared with hashing the files that it reads.

    python benchmarks/audit_speed.py BASE VECTOR MODEL [--runs 5] [--threads 2] [--wrong OTHER_VECTOR]

MODEL is an edit of BASE with VECTOR, with its record; if it does not exist, it is created with scale 0.6. Files are
read once before timing, so that they are in the page cache. With --wrong, level 3 is also timed with a wrong vector.
Prints medians, and the ratio to hashing with the same number of threads.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prosocial.editing.checkpoints.digests import digest_tensor
from prosocial.editing.checkpoints.folder import Checkpoint
from prosocial.editing.checkpoints.header import TensorInfo, read_header
from prosocial.editing.edits import apply_edit, plan_edit
from prosocial.editing.vectors.description import WEIGHTS_NAME
from prosocial.verify.audit import audit_model


def tensors_of(base: Path, vector: Path, model: Path) -> list[TensorInfo]:
    """Return every tensor that an audit of levels 2 or 3 reads, the largest first."""
    tensors = [*Checkpoint.open(base).tensors.values(), *Checkpoint.open(model).tensors.values()]
    tensors += read_header(vector / WEIGHTS_NAME).tensors.values()
    return sorted(tensors, key=lambda tensor: -tensor.size_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "vector", "model"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wrong", type=Path)
    given = parser.parse_args()
    base, vector, model, threads = given.base, given.vector, given.model, given.threads
    if not model.exists():
        apply_edit(plan_edit(Checkpoint.open(base), vector, scale=0.6), model)
    tensors = tensors_of(base, vector, model)

    def hash_all() -> str:
        with ThreadPoolExecutor(threads) as pool:
            return f"{len(list(pool.map(digest_tensor, tensors)))} tensors"

    def audit(**options: object) -> str:
        return str(audit_model(model, threads=threads, **options).verdict)  # type: ignore[arg-type]

    rows: dict[str, Callable[[], str]] = {
        "hash model, base and vector": hash_all,
        "level 1: digests": audit,
        "levels 1 and 2: recompute": lambda: audit(base=base, vectors=[vector]),
        "level 3: recover": lambda: audit(base=base, vectors=[vector], ignore_record=True),
    }
    if given.wrong:
        rows["level 3: the wrong vector"] = lambda: audit(base=base, vectors=[given.wrong], ignore_record=True)
    hash_all()
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    said = {}
    for _ in range(given.runs):  # interleaved, so that other load on the machine affects all rows alike
        for name, work in rows.items():
            start = time.perf_counter()
            said[name] = work()
            seconds[name].append(time.perf_counter() - start)
    n_parameters = Checkpoint.open(model).n_parameters
    print(f"{n_parameters / 1e9:.2f} B parameters, {sum(each.size_bytes for each in tensors) / 1e9:.2f} GB, {threads=}")
    hashing = statistics.median(seconds["hash model, base and vector"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:28} {median:7.2f} s  {median / hashing:5.2f} x hashing  {said[name]}")


if __name__ == "__main__":
    main()
