"""Word vectors from running text: one method, measured against human judgement and handed over in word2vec's format."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from pipeline.config import Config, load
from pipeline.data.preparing.word_tests import read_analogies, read_pairs
from pipeline.evaluation.word_map import Clusters, cluster_words, map_words
from pipeline.evaluation.word_similarity import (
    AnalogyScore,
    WordVectors,
    analogy_scores,
    analogy_total,
    similarity_score,
)
from pipeline.inference.word_folder import Composer, save_words
from pipeline.layout import Layout
from pipeline.stages.word_methods import Method, seed_of
from pipeline.stages.word_training import make_vectors, read_training_text
from pipeline.training.launch import launch
from pipeline.training.run import stage_run

_JUDGEMENTS = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}


class EvaluationConfig(Config):
    """What is measured and shown."""

    num_analogy_words: PositiveInt
    """Analogies are asked and answered among so many of the most frequent words."""
    num_clusters: PositiveInt
    """Clusters of frequent words."""
    num_clustered_words: PositiveInt
    """How many of the most frequent words are clustered."""
    num_map_words: PositiveInt
    """Words on the map."""
    num_skipped_words: NonNegativeInt
    """The most frequent words, which say little, that the map leaves out."""
    num_neighbours: PositiveInt
    """Nearest words that are shown for each word on the map."""
    seed: NonNegativeInt
    """Seed of the clusters and of the map."""


class WordVectorsConfig(Config):
    """The stage word_vectors."""

    min_count: PositiveInt
    """Occurrences in the training text that a word needs to get a vector."""
    method: Method
    """How the vectors are made."""
    evaluation: EvaluationConfig
    """What is measured and shown."""


def main(path: Path) -> None:
    """Makes the vectors, measures them, and hands over a folder that gensim opens."""
    config = load(path, WordVectorsConfig)
    layout = Layout.of(path)
    documents, tests = inputs = layout.data("prepared/text"), layout.data("prepared/words")
    with stage_run(__spec__.name, path, config, seed=seed_of(config.method), inputs=inputs) as run:
        text = read_training_text(documents, min_count=config.min_count)
        trained = make_vectors(run, config.method, text)
        vectors = WordVectors(text.vocabulary.words, trained.matrix)
        clusters = clusters_of(vectors, config.evaluation)
        save_words(layout.output, text.vocabulary, trained.matrix, method=config.method.kind, composer=trained.composer)
        run.finish(
            {
                **scores(vectors, tests, trained.composer, num_analogy_words=config.evaluation.num_analogy_words),
                "clusters": {"explained": clusters.explained},
                "vocabulary": {"num_words": len(text.vocabulary), "num_tokens": len(text.train.words)},
                "training": trained.numbers,
            },
            history=trained.history,
            samples=samples(vectors, clusters, config.evaluation),
        )


def scores(vectors: WordVectors, tests: Path, composer: Composer | None, *, num_analogy_words: int) -> dict[str, Any]:
    """Agreement with human judgement, and right analogies in total, by kind and by section, with their coverage.

    Where vectors of other words can be composed, `composed` has the agreement on all pairs of words with n-grams.
    """
    result: dict[str, Any] = {}
    for name, file in _JUDGEMENTS.items():
        pairs = read_pairs(tests / file)
        result[name] = asdict(similarity_score(vectors, pairs))
        if composer:
            words = {word for pair in pairs for word in (pair.first, pair.second)}
            everything = with_composed(vectors, composable(words, vectors, composer), composer)
            result.setdefault("composed", {})[name] = asdict(similarity_score(everything, pairs))
    sections = analogy_scores(vectors, read_analogies(tests / "questions-words.txt"), num_words=num_analogy_words)
    kinds = {
        "total": sections,
        "semantic": [section for section in sections if not section.name.startswith("gram")],
        "syntactic": [section for section in sections if section.name.startswith("gram")],
    }
    result["analogies"] = {name: analogy_numbers(analogy_total(chosen, name)) for name, chosen in kinds.items()}
    result["analogies"]["sections"] = {section.name: analogy_numbers(section) for section in sections}
    return result


def composable(words: Iterable[str], vectors: WordVectors, composer: Composer) -> list[str]:
    """Those of some words that have no vector and are long enough for n-grams, sorted."""
    return sorted(word for word in set(words) - set(vectors.words) if composer.subwords.bucket_rows(word))


def with_composed(vectors: WordVectors, words: Sequence[str], composer: Composer) -> WordVectors:
    """The vectors with those of further words, composed."""
    if not words:
        return vectors
    composed = np.stack([composer.vector(word) for word in words])
    return WordVectors([*vectors.words, *words], np.concatenate([vectors.units, composed]))


def analogy_numbers(score: AnalogyScore) -> dict[str, Any]:
    """The score for the metrics."""
    return {
        "accuracy": score.accuracy,
        "num_correct": score.num_correct,
        "num_covered": score.num_covered,
        "num_questions": score.num_questions,
    }


def clusters_of(vectors: WordVectors, config: EvaluationConfig) -> Clusters:
    """The clusters of frequent words."""
    return cluster_words(
        vectors, num_words=config.num_clustered_words, num_clusters=config.num_clusters, seed=config.seed
    )


def samples(vectors: WordVectors, clusters: Clusters, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Frequent words at their places on the map, each with its cluster and its nearest words."""
    mapped = map_words(
        vectors,
        clusters,
        num_skipped=config.num_skipped_words,
        num_words=config.num_map_words,
        num_neighbours=config.num_neighbours,
        seed=config.seed,
    )
    return [asdict(word) for word in mapped]


if __name__ == "__main__":
    launch(main)
