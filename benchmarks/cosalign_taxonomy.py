"""Measures the time and memory of clustering tens of thousands of real prompts; prints counts and keywords only.

    python benchmarks/cosalign_taxonomy.py prompts.json --clusters 30

The file is a JSON list of texts, or JSONL rows with `prompt`. Prints time and peak memory of the default embedding and
of HDBSCAN on the available cores, then the largest clusters with their keywords. No prompt is printed.
"""

import argparse
import json
import time
from pathlib import Path

from prosocial.recipes.cosalign.embedding import tfidf_embedding
from prosocial.recipes.cosalign.prompts import read_prompts, request_text
from prosocial.recipes.cosalign.taxonomy import NOISE, TaxonomySettings, find_clusters
from prosocial.recipes.workflow.resources import peak_memory_bytes, say_bytes


def main(path: Path, settings: TaxonomySettings, shown: int) -> None:
    texts = (
        json.loads(path.read_text()) if path.suffix == ".json" else [request_text(row) for row in read_prompts(path)]
    )
    started = time.monotonic()
    clusters = find_clusters(texts, tfidf_embedding(dimensions=settings.dimensions), settings)
    seconds = time.monotonic() - started
    noise = sum(len(cluster.members) for cluster in clusters if cluster.label == NOISE)
    named_clusters = [cluster for cluster in clusters if cluster.label != NOISE]
    print(f"{len(texts)} prompts in {seconds:.0f} s, peak memory {say_bytes(peak_memory_bytes())}")
    print(f"{len(named_clusters)} clusters, {noise} prompts ({noise / len(texts):.0%}) in none; {settings}")
    for cluster in named_clusters[:shown]:
        print(f"| {len(cluster.members)} | {', '.join(cluster.keywords)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--dimensions", type=int, default=TaxonomySettings().dimensions)
    parser.add_argument("--min-cluster-size", type=int, default=TaxonomySettings().min_cluster_size)
    parser.add_argument("--min-samples", type=int, default=TaxonomySettings().min_samples)
    parser.add_argument("--epsilon", type=float, default=TaxonomySettings().epsilon)
    parser.add_argument("--clusters", type=int, default=40, help="number of clusters to print")
    given = parser.parse_args()
    settings = TaxonomySettings(
        dimensions=given.dimensions,
        min_cluster_size=given.min_cluster_size,
        min_samples=given.min_samples,
        epsilon=given.epsilon,
    )
    main(given.prompts, settings, given.clusters)
