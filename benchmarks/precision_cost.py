"""Measures the cost of each precision: bundle size, and decisions compared with the steered model in PyTorch.

    python benchmarks/precision_cost.py STEERED [--probes probes.jsonl] [--limit 500] [--max-new-tokens 32] [--json]

Exports the steered folder in each precision, compares it as `prosocial verify` does, and prints one table. Flips are
tokens that are safe on one side and not on the other; the noise band is measured by the comparison.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prosocial.evaluation.probes.probe import read_probes
from prosocial.export.bundle_files.precision import PRECISIONS
from prosocial.export.bundling import export_bundle
from prosocial.verify.bundle_parity import default_probes, verify_bundle

COLUMNS = (
    "precision",
    "MiB",
    "logit max",
    "p99",
    "median",
    "KL mean",
    "top-1",
    "decisions",
    "flips inside",
    "outside",
    "unsafe let in",
    "risk band",
    "logit band",
    "same replies",
    "first parting",
    "verdict",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steered", type=Path)
    parser.add_argument("--probes", type=Path)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    probes = read_probes(given.probes) if given.probes else default_probes()
    spread = probes[:: max(1, len(probes) // given.limit)]
    reports: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        for precision in PRECISIONS:
            out = Path(place) / precision
            export_bundle(given.steered, out, precision=precision)  # type: ignore[arg-type]
            report = verify_bundle(out, reference=given.steered, probes=spread, max_new_tokens=given.max_new_tokens)
            size_bytes = sum(path.stat().st_size for path in out.glob("model.onnx*"))
            reports[precision] = report.to_json() | {"size_bytes": size_bytes}
            print(f"{precision}: {report.verdict} on {len(spread)} probes", file=sys.stderr, flush=True)
    if given.json:
        print(json.dumps(reports, allow_nan=False))
        return
    table = Table(*COLUMNS, box=None)
    for precision, document in reports.items():
        table.add_row(precision, *row_of(document))
    Console(width=200).print(table)


def row_of(document: dict[str, Any]) -> list[str]:
    """Return the cells of a row after the first."""
    safe, greedy, logit = document["safe_set"], document["greedy"], document["logit_difference"]
    numbers = (logit["max"], logit["p99"], logit["median"], document["kl"]["mean"])
    first = greedy["median_first_difference"]
    return [
        f"{document['size_bytes'] / 2**20:.2f}",
        *(f"{value:.2g}" for value in numbers),
        f"{document['top1_agreement']:.4f}",
        str(safe["n_decisions"]),
        str(safe["n_near_ties"]),
        str(safe["n_flips"] - safe["n_near_ties"]),
        str(safe["n_unsafe_let_in"]),
        *(f"{safe['bands'][name]:.2g}" for name in ("risk", "logit")),
        f"{greedy['n_identical']}/{greedy['n']}",
        "" if first is None else f"{first:g}",
        document["verdict"],
    ]


if __name__ == "__main__":
    main()
