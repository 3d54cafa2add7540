"""Word vectors against human judgements of similarity, and on analogies.

Legend: V words, D dimensions, Q questions. Words are lower-case and in order of falling frequency. A pair or question
with a word that has no vector is left out and counted: no score without its coverage.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from scipy import stats

from pipeline.data.preparing.word_tests import AnalogySection, ScoredPair
from pipeline.progress import progress


@dataclass(frozen=True)
class SimilarityScore:
    """Rank correlation of cosine similarity with human judgement, over the covered pairs."""

    spearman: float
    num_covered: int
    num_pairs: int


@dataclass(frozen=True)
class AnalogyScore:
    """Right answers among the covered questions."""

    name: str
    num_correct: int
    num_covered: int
    num_questions: int

    @property
    def accuracy(self) -> float:
        """Share of right answers; 0 if no question is covered."""
        return self.num_correct / self.num_covered if self.num_covered else 0.0


class WordVectors:
    """Words and their vectors, scaled to length one."""

    def __init__(self, words: Sequence[str], matrix: Float[np.ndarray, "V D"]) -> None:
        if len(words) != len(matrix):
            raise ValueError(f"as many words as vectors are needed, found {len(words)} and {len(matrix)}")
        self.words = tuple(words)
        self.numbers = {word: number for number, word in enumerate(words)}
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        self.units = (matrix / np.maximum(lengths, 1e-12)).astype(np.float32)

    def nearest(self, word: str, *, num_neighbours: int) -> tuple[tuple[str, float], ...]:
        """The words with the largest cosine similarity to `word`, with it. Raises ValueError if it has no vector."""
        if word not in self.numbers:
            raise ValueError(f"'{word}' is not among the {len(self.words)} words")
        number = self.numbers[word]
        cosines = self.units @ self.units[number]
        cosines[number] = -np.inf
        best = np.argsort(-cosines, kind="stable")[:num_neighbours]
        return tuple((self.words[i], float(cosines[i])) for i in best if i != number)


def similarity_score(vectors: WordVectors, pairs: Sequence[ScoredPair]) -> SimilarityScore:
    """Spearman correlation of the cosines with the judgements; 0 with fewer than two covered pairs."""
    covered = [pair for pair in pairs if pair.first in vectors.numbers and pair.second in vectors.numbers]
    spearman = 0.0
    if len(covered) >= 2:
        first = vectors.units[[vectors.numbers[pair.first] for pair in covered]]
        second = vectors.units[[vectors.numbers[pair.second] for pair in covered]]
        spearman = float(stats.spearmanr((first * second).sum(1), [pair.score for pair in covered]).statistic)
    return SimilarityScore(spearman=spearman, num_covered=len(covered), num_pairs=len(pairs))


def analogy_scores(
    vectors: WordVectors, sections: Sequence[AnalogySection], *, num_words: int, chunk_size: int = 512
) -> tuple[AnalogyScore, ...]:
    """Each section's score by 3CosAdd (Mikolov et al. 2013; Levy and Goldberg 2014, eq. 1).

    The answer is the word, none of the three given, whose cosine with `b - a + c` is largest. Questions and answers are
    restricted to the `num_words` most frequent words.
    """
    units = vectors.units[:num_words]
    scores = []
    for section in progress(
        sections,
        name="analogies",
        unit="questions",
        total=sum(len(section.questions) for section in sections),
        size=lambda section: len(section.questions),
    ):
        numbers = np.array(
            [[vectors.numbers.get(word, num_words) for word in question] for question in section.questions]
        ).reshape(-1, 4)
        covered = numbers[(numbers < len(units)).all(axis=1)]
        chunks = [covered[start : start + chunk_size] for start in range(0, len(covered), chunk_size)]
        num_correct = sum(int((_answers(units, chunk[:, :3]) == chunk[:, 3]).sum()) for chunk in chunks)
        scores.append(AnalogyScore(section.name, num_correct, len(covered), len(section.questions)))
    return tuple(scores)


def analogy_total(scores: Sequence[AnalogyScore], name: str) -> AnalogyScore:
    """The sum of several sections, for example of the syntactic ones, whose names begin with `gram`."""
    return AnalogyScore(
        name=name,
        num_correct=sum(score.num_correct for score in scores),
        num_covered=sum(score.num_covered for score in scores),
        num_questions=sum(score.num_questions for score in scores),
    )


def _answers(units: Float[np.ndarray, "V D"], given: Integer[np.ndarray, "Q 3"]) -> Integer[np.ndarray, "Q"]:
    """Number of the best word for each question."""
    a, b, c = units[given[:, 0]], units[given[:, 1]], units[given[:, 2]]
    cosines = (b - a + c) @ units.T  # the length of b - a + c does not change the order
    np.put_along_axis(cosines, given, -np.inf, axis=1)
    answers: np.ndarray = cosines.argmax(axis=1)
    return answers
