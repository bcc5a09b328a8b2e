"""Clusters prompts into a taxonomy of harm; each cluster has keywords and samples, from which it can be named."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import InputError, MissingExtraError
from prosocial.core.settings import Count, NonNegative, Settings

from .embedding import Embedding

NOISE = -1


class TaxonomySettings(Settings):
    """How prompts are clustered.

    Attributes:
        dimensions: number of dimensions of the embedding.
        min_cluster_size: `min_cluster_size` of HDBSCAN.
        min_samples: `min_samples` of HDBSCAN.
        epsilon: `cluster_selection_epsilon` of HDBSCAN.
        keywords: number of keywords kept for each cluster.
        samples: number of sample prompts kept for each cluster.
    """

    dimensions: int = 50
    min_cluster_size: Count = 40
    min_samples: Count = 5
    epsilon: NonNegative = 0.0
    keywords: Count = 8
    samples: Count = 12


@dataclass(frozen=True)
class Cluster:
    """A cluster of prompts.

    Attributes:
        label: number of the cluster; -1 for the prompts that belong to no cluster.
        members: indices of its prompts.
        keywords: the words that are most specific to this cluster.
        samples: prompts of the cluster, the most central first.
        name: name given by hand or by a model; empty until then.
        definition: definition of the harm; empty until the cluster is named.
    """

    label: int
    members: tuple[int, ...]
    keywords: tuple[str, ...]
    samples: tuple[str, ...]
    name: str = ""
    definition: str = ""

    def named(self, name: str, definition: str = "") -> "Cluster":
        """Return the cluster with a name and a definition."""
        return replace(self, name=name, definition=definition)

    def to_json(self) -> dict[str, Any]:
        """Return the cluster as JSON values."""
        return asdict(self) | {"size": len(self.members)}


def find_clusters(texts: Sequence[str], embed: Embedding, settings: TaxonomySettings) -> list[Cluster]:
    """Cluster prompts with HDBSCAN (Campello et al. 2013); largest cluster first, noise last.

    Raises:
        InputError: there are fewer than `2 * min_cluster_size` prompts.
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError:
        raise MissingExtraError("scikit-learn", "train") from None
    if len(texts) < 2 * settings.min_cluster_size:
        raise InputError(
            f"min_cluster_size {settings.min_cluster_size} needs at least {2 * settings.min_cluster_size} prompts, "
            f"found {len(texts)}: lower min_cluster_size"
        )
    points = embed(texts)
    labels = HDBSCAN(
        min_cluster_size=settings.min_cluster_size,
        min_samples=settings.min_samples,
        cluster_selection_epsilon=settings.epsilon,
        algorithm="kd_tree",  # memory is linear in the number of prompts, not quadratic
        copy=True,
    ).fit_predict(points)
    keywords = _keywords(texts, labels, settings.keywords)
    clusters = [
        Cluster(int(label), tuple(members.tolist()), keywords[int(label)], _samples(texts, points, members, settings))
        for label in np.unique(labels)
        for members in [np.flatnonzero(labels == label)]
    ]
    return sorted(clusters, key=lambda cluster: (cluster.label == NOISE, -len(cluster.members), cluster.label))


def _keywords(texts: Sequence[str], labels: NDArray[Any], count: int) -> dict[int, tuple[str, ...]]:
    """Return the keywords of each cluster by class-based TF-IDF, as BERTopic does (arXiv 2203.05794)."""
    from sklearn.feature_extraction.text import CountVectorizer

    names = np.unique(labels)
    counter = CountVectorizer(stop_words="english", min_df=2, token_pattern=r"(?u)\b[^\W\d_]{3,}\b")
    table = counter.fit_transform(texts)
    by_cluster = np.vstack([np.asarray(table[labels == name].sum(axis=0)) for name in names])  # [clusters, words]
    share = by_cluster / np.maximum(1, by_cluster.sum(axis=1, keepdims=True))
    rarity = np.log1p(by_cluster.sum() / len(names) / np.maximum(1, by_cluster.sum(axis=0)))
    words = counter.get_feature_names_out()
    best = np.argsort(-share * rarity, axis=1, kind="stable")[:, :count]
    return {int(name): tuple(str(words[at]) for at in row) for name, row in zip(names, best, strict=True)}


def _samples(
    texts: Sequence[str], points: NDArray[np.float32], members: NDArray[Any], settings: TaxonomySettings
) -> tuple[str, ...]:
    distance = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
    return tuple(texts[at] for at in members[np.argsort(distance, kind="stable")[: settings.samples]])
