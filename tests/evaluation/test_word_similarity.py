"""Word similarity and analogies on vectors built by hand, with a loop for oracle."""

import numpy as np
import pytest

from pipeline.data.preparing.word_tests import AnalogySection, ScoredPair
from pipeline.evaluation.word_similarity import WordVectors, analogy_scores, analogy_total, similarity_score


def _vectors(table: dict[str, list[float]]) -> WordVectors:
    return WordVectors(list(table), np.array(list(table.values()), dtype=np.float64))


PLANE = _vectors({"east": [1, 0], "northeast": [3, 3], "north": [0, 2], "west": [-1, 0]})


def test_similarity_is_the_rank_correlation_of_cosines_whatever_the_lengths_of_the_vectors() -> None:
    pairs = [ScoredPair("east", "northeast", 9.0), ScoredPair("east", "north", 5.0), ScoredPair("east", "west", 1.0)]
    score = similarity_score(PLANE, pairs)
    assert score.spearman == pytest.approx(1.0)
    swapped = [ScoredPair("east", "northeast", 5.0), ScoredPair("east", "north", 9.0), ScoredPair("east", "west", 1.0)]
    assert similarity_score(PLANE, swapped).spearman == pytest.approx(0.5)


def test_pairs_with_an_unknown_word_are_left_out_and_counted() -> None:
    pairs = [
        ScoredPair("east", "northeast", 9.0),
        ScoredPair("east", "up", 10.0),
        ScoredPair("east", "north", 5.0),
        ScoredPair("down", "up", 0.0),
    ]
    score = similarity_score(PLANE, pairs)
    assert (score.num_covered, score.num_pairs) == (2, 4)
    assert score.spearman == pytest.approx(1.0)
    assert similarity_score(PLANE, pairs[1:2]).spearman == 0.0


def test_nearest_words_are_in_order_of_cosine_and_leave_out_the_word() -> None:
    neighbours = PLANE.nearest("east", num_neighbours=2)
    assert [word for word, _ in neighbours] == ["northeast", "north"]
    assert [cosine for _, cosine in neighbours] == pytest.approx([2**-0.5, 0.0], abs=1e-6)
    assert len(PLANE.nearest("east", num_neighbours=10)) == 3


def test_a_word_without_a_vector_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="'up' is not among the 4 words"):
        PLANE.nearest("up", num_neighbours=1)


def test_an_analogy_is_solved_by_addition_and_never_answered_with_a_given_word() -> None:
    # king - man + woman = queen exactly; without the exclusion man : king as man : ? would answer king.
    vectors = _vectors({"man": [1, 0, 0], "woman": [1, 1, 0], "king": [1, 0, 1], "queen": [1, 1, 1], "dog": [0, 0, -1]})
    section = AnalogySection("royal", (("man", "king", "woman", "queen"), ("man", "king", "man", "queen")))
    (score,) = analogy_scores(vectors, [section], num_words=10)
    assert (score.num_correct, score.num_covered, score.num_questions) == (2, 2, 2)


def test_analogies_equal_the_loop_over_questions_and_words() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    matrix = rng.normal(size=(60, 4)).astype(np.float32)
    vectors = WordVectors(words, matrix)
    names = [f"w{i}" for i in range(70)]  # ten unknown
    drawn = [tuple(rng.choice(names, 4, replace=False).tolist()) for _ in range(2000)]
    questions = tuple((a, b, c, d) for a, b, c, d in drawn)
    num_correct = num_covered = 0
    for a, b, c, d in questions:
        if not all(word in words[:40] for word in (a, b, c, d)):
            continue
        num_covered += 1
        unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        goal = unit[words.index(b)] - unit[words.index(a)] + unit[words.index(c)]
        best = max((w for w in words[:40] if w not in (a, b, c)), key=lambda w: float(goal @ unit[words.index(w)]))
        num_correct += best == d
    (score,) = analogy_scores(vectors, [AnalogySection("all", questions)], num_words=40, chunk_size=7)
    assert (score.num_correct, score.num_covered, score.num_questions) == (num_correct, num_covered, 2000)
    assert num_correct > 0


def test_sections_are_summed_before_the_division() -> None:
    vectors = _vectors({"man": [1, 0, 0], "woman": [1, 1, 0], "king": [1, 0, 1], "queen": [1, 1, 1], "dog": [0, 0, -1]})
    right, wrong = ("man", "king", "woman", "queen"), ("man", "king", "woman", "dog")
    scores = analogy_scores(
        vectors,
        [AnalogySection("one", (right,)), AnalogySection("two", (right, wrong, wrong)), AnalogySection("none", ())],
        num_words=5,
    )
    total = analogy_total(scores, "total")
    assert [score.accuracy for score in scores] == pytest.approx([1.0, 1 / 3, 0.0])
    assert total.accuracy == pytest.approx(0.5) and total.num_questions == 4


def test_vectors_that_do_not_fit_the_words_are_refused() -> None:
    with pytest.raises(ValueError, match="found 1 and 2"):
        WordVectors(["a"], np.zeros((2, 3)))
