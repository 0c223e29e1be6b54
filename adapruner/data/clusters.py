"""Domains of samples of one source: clusters of similar words.

The samples are vectors of TF-IDF over token ids, reduced by a truncated SVD (latent semantic
analysis) to vectors of length 1, and grouped by k-means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIMENSIONS = 32
_INITIALISATIONS = 10
_WORDS = 20
"""Characteristic tokens of a cluster; some of them are parts of words."""


def clusters_of(
    samples: NDArray[np.int32], reference: int, count: int, seed: int
) -> tuple[NDArray[np.int32], list[list[int]]]:
    """The cluster of each of the samples [N, T], and the characteristic token ids of each cluster.

    There are up to `count` clusters, numbered by size, largest first. Each has at least one of the
    first `reference` samples: another is merged into the nearest cluster that has one. Samples with
    no more than one token in common are one cluster.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    count = min(count, reference)
    whole: tuple[NDArray[np.int32], list[list[int]]] = np.zeros(len(samples), np.int32), [[]]
    if count < 2:
        return whole
    # A token of one sample joins no samples, and one of most samples separates none.
    vectorizer = TfidfVectorizer(analyzer=list, min_df=2, max_df=0.5, sublinear_tf=True)
    try:
        weights = vectorizer.fit_transform(samples.tolist())
    except ValueError:  # no token is left
        return whole
    if weights.shape[1] < 2:
        return whole
    # One thread: the order of a sum over several threads may change the last bits.
    with threadpool_limits(1):
        labels = _k_means(weights, reference, count, seed)
    return labels, _characteristic(weights, labels, vectorizer.get_feature_names_out())


def _k_means(weights: Any, reference: int, count: int, seed: int) -> NDArray[np.int32]:
    """The cluster of each row of the sparse matrix [N, tokens]."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    dimensions = min(_DIMENSIONS, *weights.shape)
    points = normalize(TruncatedSVD(dimensions, random_state=seed).fit_transform(weights))
    count = min(count, len(np.unique(points, axis=0)))
    means = KMeans(count, n_init=_INITIALISATIONS, random_state=seed).fit(points)
    kept = np.unique(means.labels_[:reference])
    centres = means.cluster_centers_
    gaps = np.linalg.norm(centres[:, None] - centres[None, kept], axis=2)
    labels = kept[gaps.argmin(axis=1)][means.labels_]
    names, sizes = np.unique(labels, return_counts=True)
    order = names[np.argsort(-sizes, kind="stable")]
    return np.array([order.tolist().index(label) for label in labels], dtype=np.int32)


def _characteristic(
    weights: Any, labels: NDArray[np.int32], tokens: NDArray[np.object_]
) -> list[list[int]]:
    """Of each cluster the tokens whose mean weight exceeds that of all samples most."""
    mean = np.asarray(weights.mean(axis=0)).ravel()
    result = []
    for label in range(labels.max() + 1):
        excess = np.asarray(weights[labels == label].mean(axis=0)).ravel() - mean
        result.append([int(tokens[i]) for i in np.argsort(-excess, kind="stable")[:_WORDS]])
    return result
