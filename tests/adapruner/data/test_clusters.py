"""Clusters of samples: they recover topics, are numbered by size, and have calibration samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapruner.data.clusters import clusters_of


def topics(sizes: list[int], seed: int = 0) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Samples of common tokens and tokens of one topic, in random order, and their topics."""
    rng = np.random.default_rng(seed)
    topic = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    own = rng.integers(0, 30, (len(topic), 8)) + 100 * (topic[:, None] + 1)
    common = rng.integers(0, 10, (len(topic), 24))
    return np.concatenate([common, own], axis=1).astype(np.int32), topic


def test_topics_are_recovered_and_numbered_by_size() -> None:
    samples, topic = topics([20, 60, 40])
    labels, words = clusters_of(samples, len(samples), 3, seed=1)
    expected = np.array([2, 0, 1])[topic]
    assert (labels == expected).mean() > 0.95
    assert len(words) == 3
    for n, tokens in enumerate(words):
        own = (np.array(tokens) // 100 - 1).tolist()
        assert set(own[:10]) == {[1, 2, 0][n]}


def test_a_cluster_without_calibration_samples_is_merged() -> None:
    samples, topic = topics([40, 40, 40])
    order = np.argsort(topic == 2, kind="stable")
    samples, topic = samples[order], topic[order]
    labels, words = clusters_of(samples, 40, 3, seed=0)
    assert len(words) == 2 == labels.max() + 1
    assert set(labels[:40].tolist()) == {0, 1}


def test_few_or_equal_samples_give_fewer_clusters() -> None:
    samples, _ = topics([20, 20])
    assert len(clusters_of(samples, 1, 4, seed=0)[1]) == 1
    assert len(clusters_of(samples[:3], 3, 4, seed=0)[1]) <= 3
    same = np.repeat(samples[:1], 9, axis=0)
    labels, words = clusters_of(same, 9, 4, seed=0)
    assert labels.tolist() == [0] * 9 and len(words) == 1


def test_the_seed_decides_the_clusters() -> None:
    samples, _ = topics([30, 30, 30, 30])
    first, again = (clusters_of(samples, 60, 5, seed=3) for _ in range(2))
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1] == again[1]


def test_samples_with_one_token_in_common_are_one_cluster() -> None:
    samples = np.arange(48, dtype=np.int32).reshape(12, 4)
    samples[1, 0] = samples[0, 0]
    labels, words = clusters_of(samples, 6, 4, seed=0)
    assert not labels.any() and words == [[]]
