"""Compares the loops in C with the same loops in numpy on one core: medians in nanoseconds per element.

python benchmarks/loops.py [--runs 9]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from prosocial.editing.checkpoints.numbers import LOOP_ELEMENTS, PIECE_ELEMENTS
from prosocial.editing.edits.piece import PieceEdit
from prosocial.editing.kernels import portable
from prosocial.editing.kernels.loops import native

N_PIECES = 16


def main() -> None:
    """Time every loop and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    n_runs = parser.parse_args().runs
    if native is None:
        raise SystemExit("the loops in C should be built, found none: install the package with a C compiler")
    print(f"{'':14} {'C':>8} {'numpy':>8}  ns an element")
    for name, (compiled, numpys) in loops().items():
        seconds: dict[str, list[float]] = {"C": [], "numpy": []}
        for _ in range(n_runs):
            seconds["C"].append(timed(compiled))
            seconds["numpy"].append(timed(numpys))
        ours, theirs = (statistics.median(seconds[which]) for which in ("C", "numpy"))
        print(f"{name:14} {ours:8.2f} {theirs:8.2f}  {theirs / ours:.1f} times")


def timed(loop: Callable[[], int]) -> float:
    """Run a loop over some pieces; return nanoseconds per element."""
    start, n_elements = time.perf_counter(), 0
    for _ in range(N_PIECES):
        n_elements += loop()
    return 1e9 * (time.perf_counter() - start) / n_elements


def loops() -> dict[str, tuple[Callable[[], int], Callable[[], int]]]:
    """Return every loop in C and in numpy; each call returns the number of elements that it processed.

    Pieces are as long as in the engine, which uses shorter ones for the edit in numpy so that they fit into the cache.
    """
    generator = np.random.default_rng(0)
    base, step = (scale * generator.standard_normal(LOOP_ELEMENTS, np.float32) for scale in (0.02, 0.002))
    stored, tuned = ((numbers.view(np.uint32) >> 16).astype(np.uint16) for numbers in (base, base + step))
    threshold = int(np.sort(step.view(np.uint32) & 0x7FFFFFFF)[4 * LOOP_ELEMENTS // 5])
    kept, out = np.empty_like(step), np.empty_like(step)
    portable.keep(step, threshold, 0, kept)
    places, values = np.empty(LOOP_ELEMENTS, np.int32), np.empty(LOOP_ELEMENTS, np.float32)
    n_entries = portable.gather(kept, 0, places, values)
    entries, counts = (places[:n_entries].copy(), values[:n_entries].copy()), np.zeros(5 << 16, np.uint32)
    low = (threshold >> 16) - 2 << 16

    def edit(*, in_numpy: bool) -> Callable[[], int]:
        piece, n = PieceEdit("BF16", portable=in_numpy), PIECE_ELEMENTS if in_numpy else LOOP_ELEMENTS
        return lambda: len(piece.apply(stored[:n], step[:n], 1.0)[0])

    def both(call: Callable[[Any], object]) -> tuple[Callable[[], int], Callable[[], int]]:
        def over(by: Any) -> Callable[[], int]:
            return lambda: (call(by), LOOP_ELEMENTS)[1]

        return over(native), over(portable)

    return {
        "edit": (edit(in_numpy=False), edit(in_numpy=True)),
        "difference": both(lambda by: by.difference(stored, tuned, out, True)),
        "count_window": both(lambda by: by.count_window(step, low, counts)),
        "keep": both(lambda by: by.keep(step, threshold, 3, out)),
        "gather": both(lambda by: by.gather(kept, 0, places, values)),
        "scatter": both(lambda by: by.scatter(*entries, 0, out)),
    }


if __name__ == "__main__":
    main()
