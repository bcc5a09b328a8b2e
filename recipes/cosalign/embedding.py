"""Texts as points for clustering: the embedding that needs no model."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from prosocial.core.errors import MissingExtraError

Embedding = Callable[[Sequence[str]], NDArray[np.float32]]
MOST_DIMENSIONS = 50  # beyond, the trees that find neighbours are slower than no tree


def tfidf_embedding(*, dimensions: int = MOST_DIMENSIONS, seed: int = 0) -> Embedding:
    """Return an embedding by words: TF-IDF, reduced by a truncated SVD, on the unit sphere.

    Args:
        dimensions: of a point, at most 50; fewer where the texts hold fewer words.

    Returns:
        A function from N texts to float32 [N, D].
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
