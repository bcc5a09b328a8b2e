"""Embeds texts for clustering, without a neural model."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import MissingExtraError

Embedding = Callable[[Sequence[str]], NDArray[np.float32]]
MOST_DIMENSIONS = 50  # with more, a k-d tree finds neighbours more slowly than brute force


def tfidf_embedding(*, dimensions: int = MOST_DIMENSIONS, seed: int = 0) -> Embedding:
    """Return a bag-of-words embedding: TF-IDF, reduced by a truncated SVD and scaled to unit length.

    Args:
        dimensions: number of dimensions D, at most 50; fewer if the texts have fewer distinct words.
        seed: seed of the truncated SVD.

    Returns:
        A function from N texts to float32 [N, D]; it raises MissingExtraError without scikit-learn.
    """

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        try:
            from sklearn.decomposition import TruncatedSVD
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.preprocessing import normalize
        except ImportError:
            raise MissingExtraError("scikit-learn", "train") from None
        words = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english", dtype=np.float32)
        table = words.fit_transform(texts)
        n_components = min(dimensions, MOST_DIMENSIONS, *(size - 1 for size in table.shape))
        points = TruncatedSVD(n_components, random_state=seed).fit_transform(table)
        unit: NDArray[np.float32] = normalize(points).astype(np.float32)
        return unit

    return embed
