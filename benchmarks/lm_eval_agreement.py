"""Checks that lm-evaluation-harness gives the edited checkpoint and its plain bundle the same scores.

    python benchmarks/lm_eval_agreement.py runs/quickstart/edit --pairs runs/quickstart/pairs/pairs.jsonl \
        [--limit 300] [--environment DIR]

Exports the checkpoint as a plain bundle, writes a small multiple-choice task from the lab's labelled pairs (which of
two replies is more helpful), and scores both with the harness: the checkpoint with its `hf` backend, the bundle with
`lm_eval_bundle.py`. The harness runs in its own environment of more than 1 GB, with torch and this checkout, which is
created in DIR unless it exists. Fails unless every metric agrees within 0.001.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environments import ROOT, TORCH, environment

from prosocial.core.files import read_jsonl, write_jsonl
from prosocial.export import export_bundle

SCORER = ROOT / "benchmarks" / "lm_eval_bundle.py"
NEEDED = ("lm_eval[hf]==0.4.13", TORCH, "-e", f"{ROOT}[cpu]")
TOLERANCE = 1e-3
SIDES = ("first", "second")


def write_task(pairs: Path, out: Path, *, limit: int) -> None:
    """Write one line per pair whose replies differ in helpfulness: the request, both replies, and the better one."""
    rows = [row for row in read_jsonl(pairs) if row["labels"].get("helpfulness") in SIDES]
    tasks = [
        {
            "question": row["messages"][-1]["content"],
            "choices": [row[side].strip() for side in SIDES],
            "answer": SIDES.index(row["labels"]["helpfulness"]),
        }
        for row in rows[:limit]
    ]
    write_jsonl(out, tasks)


def scores(python: Path, backend: str, folder: Path, task: Path) -> dict[str, Any]:
    """Score one model with the harness, in a separate process."""
    command = [python, SCORER, backend, folder, task]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--pairs", type=Path, required=True, help="labelled pairs of replies")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--environment", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        write_task(given.pairs, work / "task.jsonl", limit=given.limit)
        export_bundle(given.checkpoint, work / "bundle", plain=True)
        python = environment(given.environment or work / "environment", *NEEDED)
        hf = scores(python, "hf", given.checkpoint.resolve(), work / "task.jsonl")
        ours = scores(python, "bundle", work / "bundle", work / "task.jsonl")
    differences = [abs(a - b) for a, b in zip(hf["log_likelihoods"], ours["log_likelihoods"], strict=True)]
    print(f"{len(differences)} log-likelihoods: largest difference {max(differences):.1e}")
    n_apart = 0
    for metric, value in hf["metrics"].items():
        n_apart += abs(value - ours["metrics"][metric]) > TOLERANCE
        print(f"{metric}: {value:.4f} by hf on the checkpoint, {ours['metrics'][metric]:.4f} on the plain bundle")
    sys.exit(n_apart > 0)


if __name__ == "__main__":
    main()
