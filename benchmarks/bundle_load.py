"""Compares the time of opening a bundle, with all digests checked, with onnxruntime's loading of the same graph.

    python benchmarks/bundle_load.py runs/quickstart/bundle --runs 7

Each load is a separate process; the two alternate. Prints medians in seconds and their ratio.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

OURS = """
from prosocial.export.runtime.bundle import Bundle
import onnxruntime, time
start = time.perf_counter()
Bundle.open({folder!r})
print(time.perf_counter() - start)
"""
ITS_OWN = """
import onnxruntime, time
start = time.perf_counter()
onnxruntime.InferenceSession({folder!r} + "/model.onnx", providers=["CPUExecutionProvider"])
print(time.perf_counter() - start)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--python", default=sys.executable, help="interpreter of an environment with prosocial[cpu]")
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {"prosocial": [], "onnxruntime": []}
    for turn in range(given.runs + 1):
        for name, program in (("prosocial", OURS), ("onnxruntime", ITS_OWN)):
            command = [given.python, "-c", program.format(folder=str(given.bundle))]
            out = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if turn:  # the first turn fills the page cache
                seconds[name].append(float(out.stdout))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12} {median:6.3f} s  ({min(seconds[name]):.3f} to {max(seconds[name]):.3f})")
    print(f"ratio {medians['prosocial'] / medians['onnxruntime']:.2f}")


if __name__ == "__main__":
    main()
