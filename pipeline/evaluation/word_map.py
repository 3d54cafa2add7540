"""Word vectors for the eye: clusters of frequent words, and some of them in the plane.

V words, D dimensions, M words on the map.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE

from pipeline.evaluation.word_similarity import WordVectors


@dataclass(frozen=True)
class MappedWord:
    """A word at its place in the plane."""

    word: str
    x: float
    y: float
    cluster: int
    nearest: tuple[str, ...]
    """The words with the most similar vectors, in the whole vocabulary."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of the most frequent words."""

    of_word: Int[np.ndarray, "V"]
    """Cluster of each word, numbered by the most frequent word that they hold."""
    explained: float
    """Share of the squared distances from the mean that lies between the clusters."""


def cluster_words(vectors: WordVectors, *, num_words: int, num_clusters: int, seed: int) -> Clusters:
    """k-means of the unit vectors of the `num_words` most frequent words, best of four starts."""
    units = vectors.units[:num_words]
    found = KMeans(min(num_clusters, len(units)), n_init=4, random_state=seed).fit(units)
    _, first, cluster = np.unique(found.labels_, return_index=True, return_inverse=True)
    total = float(np.square(units - units.mean(axis=0)).sum())
    explained = 1.0 - float(found.inertia_) / total if total > 0 else 0.0
    return Clusters(of_word=np.argsort(np.argsort(first))[cluster], explained=explained)


def map_words(
    vectors: WordVectors, clusters: Clusters, *, num_skipped: int, num_words: int, num_neighbours: int, seed: int
) -> tuple[MappedWord, ...]:
    """`num_words` of the clustered words by falling frequency, without the `num_skipped` most frequent ones (articles,
    prepositions), which are skipped only as far as enough others are left."""
    num_words = min(num_words, len(clusters.of_word))
    begin = min(num_skipped, len(clusters.of_word) - num_words)
    places = _plane(vectors.units[begin : begin + num_words], seed=seed)
    return tuple(
        MappedWord(
            word=vectors.words[number],
            x=round(float(x), 3),
            y=round(float(y), 3),
            cluster=int(clusters.of_word[number]),
            nearest=tuple(word for word, _ in vectors.nearest(vectors.words[number], num_neighbours=num_neighbours)),
        )
        for number, (x, y) in enumerate(places, start=begin)
    )


def _plane(units: Float[np.ndarray, "M D"], *, seed: int) -> Float[np.ndarray, "M 2"]:
    """t-SNE (van der Maaten and Hinton 2008), which keeps neighbours together where PCA piles words up."""
    perplexity = min(15.0, (len(units) - 1) / 3)
    if perplexity < 1:
        return np.zeros((len(units), 2), dtype=np.float32)
    plane = TSNE(2, perplexity=perplexity, init="pca", method="exact", random_state=seed)
    return np.asarray(plane.fit_transform(units))
