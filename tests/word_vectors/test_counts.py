"""Co-occurrence counts, PPMI, its decomposition and GloVe's examples against loops and closed forms."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from pipeline.data.examples.cooccurrence import (
    Weighting,
    cell_examples,
    count_cooccurrences,
    count_in_passages,
    hold_out,
)
from pipeline.data.examples.word_numbers import Passages
from pipeline.data.token_arrays import in_memory
from pipeline.models.count_vectors import log_counts, positive_pmi, svd_vectors, topic_vectors
from pipeline.stages.word_training import explained_shares

RANDOM = np.random.default_rng(1)
LENGTHS = (1, 7, 20, 2, 12)
WORDS = RANDOM.integers(0, 6, sum(LENGTHS)).astype(np.int32)
PASSAGES = Passages(words=WORDS, passage=np.repeat(np.arange(len(LENGTHS)), LENGTHS).astype(np.int32))


@pytest.mark.parametrize(
    ("weighting", "weights"), [("flat", (1, 1, 1)), ("linear", (1, 2 / 3, 1 / 3)), ("harmonic", (1, 1 / 2, 1 / 3))]
)
def test_counts_equal_a_loop_over_pairs_of_words(weighting: Weighting, weights: tuple[float, ...]) -> None:
    expected = np.zeros((6, 6))
    for i in range(len(WORDS)):
        for j in range(len(WORDS)):
            if 1 <= abs(i - j) <= 3 and PASSAGES.passage[i] == PASSAGES.passage[j]:
                expected[WORDS[i], WORDS[j]] += weights[abs(i - j) - 1]
    counts = count_cooccurrences(PASSAGES, num_words=6, window=3, weighting=weighting)
    np.testing.assert_allclose(counts.toarray(), expected)


def test_ppmi_of_a_small_matrix_is_worked_by_hand() -> None:
    # Rows sum to 6 and 4, columns to 8 and 2, all to 10: log(5 * 10 / (6 * 8)), log(1 * 10 / (6 * 2)) < 0, ...
    counts = sparse.csr_matrix([[5.0, 1.0], [3.0, 1.0]])
    expected = [[math.log(50 / 48), 0.0], [0.0, math.log(10 / 8)]]
    np.testing.assert_allclose(positive_pmi(counts, smoothing=1.0, shift=0.0).toarray(), expected)
    shifted = positive_pmi(counts, smoothing=1.0, shift=math.log(1.1)).toarray()
    np.testing.assert_allclose(shifted, [[0.0, 0.0], [0.0, math.log(10 / 8 / 1.1)]])


def test_smoothing_raises_the_counts_of_the_contexts_alone() -> None:
    counts = sparse.csr_matrix([[0.0, 1.0], [16.0, 0.0]])
    # Context shares 16^0.5 and 1 of 5: log(1 / (1 * 1/5)), log(16 / (16 * 4/5)).
    expected = [[0.0, math.log(5)], [math.log(5 / 4), 0.0]]
    np.testing.assert_allclose(positive_pmi(counts, smoothing=0.5, shift=0.0).toarray(), expected)


def test_log_counts_are_those_of_one_plus_the_count() -> None:
    np.testing.assert_allclose(log_counts(sparse.csr_matrix([[0.0, math.e - 1]])).toarray(), [[0.0, 1.0]])


def test_vectors_are_the_left_singular_vectors_times_a_power_of_the_singular_values() -> None:
    # Singular values 5, 2 and 1 on known axes.
    basis, _ = np.linalg.qr(RANDOM.normal(size=(8, 3)))
    matrix = sparse.csr_matrix((basis * [5.0, 2.0, 1.0]) @ basis.T)
    for power in (0.0, 0.5, 1.0):
        vectors = svd_vectors(matrix, d_model=2, power=power, seed=0)
        signs = np.sign((vectors * basis[:, :2]).sum(0))
        np.testing.assert_allclose(vectors * signs, basis[:, :2] * [5.0**power, 2.0**power], atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_each_dimension_explains_the_square_of_its_singular_value(power: float) -> None:
    basis, _ = np.linalg.qr(RANDOM.normal(size=(8, 3)))
    other, _ = np.linalg.qr(RANDOM.normal(size=(8, 3)))
    singular = np.array([5.0, 2.0, 1.0])
    shares = explained_shares(sparse.csr_matrix((basis * singular) @ other.T), basis * singular**power)
    np.testing.assert_allclose(shares, [25 / 30, 29 / 30, 1.0])


def test_the_decomposition_is_the_same_for_the_same_seed_and_needs_enough_words() -> None:
    matrix = sparse.csr_matrix(np.abs(RANDOM.normal(size=(30, 30))))
    first, again = (svd_vectors(matrix, d_model=5, power=0.5, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(ValueError, match="31 dimensions need as many words, found 30"):
        svd_vectors(matrix, d_model=31, power=0.5, seed=3)


@pytest.mark.parametrize("cells_per_example", [1, 2, 4, 100])
def test_examples_hold_every_cell_once_in_one_row_and_sizes_count_them(cells_per_example: int) -> None:
    counts = count_cooccurrences(PASSAGES, num_words=6, window=2, weighting="harmonic")
    examples = cell_examples(counts, cells_per_example=cells_per_example)
    sizes = examples.sizes(0)
    batch = examples.collate(np.arange(len(sizes.lengths)), 0)
    np.testing.assert_array_equal(batch.is_cell.sum(1).numpy(), sizes.num_targets["loss"])
    assert int(sizes.lengths.max()) <= cells_per_example
    rebuilt = np.zeros((6, 6))
    for n, p in batch.is_cell.nonzero().tolist():
        cell = int(batch.rows[n]), int(batch.columns[n, p])
        assert rebuilt[cell] == 0.0
        rebuilt[cell] = float(batch.counts[n, p])
    np.testing.assert_allclose(rebuilt, counts.toarray(), rtol=1e-6)


def test_rows_without_cells_have_no_examples() -> None:
    examples = cell_examples(sparse.csr_matrix([[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]][:2]), cells_per_example=4)
    assert (examples.rows.tolist(), examples.lengths.tolist()) == ([1], [1])


def test_held_out_cells_are_a_random_share_that_is_symmetric_and_apart_from_the_rest() -> None:
    full = sparse.csr_matrix(np.ones((120, 120)))
    rest, held_out = hold_out(full, share=0.1, seed=2)
    assert held_out.nnz == pytest.approx(1440, abs=4 * math.sqrt(2 * 1440))
    np.testing.assert_array_equal(held_out.toarray(), held_out.toarray().T)
    np.testing.assert_array_equal((rest + held_out).toarray(), full.toarray())
    shares = [hold_out(full, share=share, seed=2)[1].nnz for share in (0.0, 0.1, 0.2)]
    assert shares[0] == 0 and all(first < second for first, second in pairwise(shares))


def test_a_passage_is_so_many_tokens_of_one_document() -> None:
    tokens = in_memory([[[0, 1], [1]], [], [[3], [3]]])
    # Passages of two tokens: (0, 1), (1) of the first document, (3, 3) of the third.
    expected = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 2]]
    np.testing.assert_array_equal(count_in_passages(tokens, num_tokens=4, length=2).toarray(), expected)


def test_tokens_of_the_same_passages_get_like_vectors_and_others_do_not() -> None:
    # Tokens 0 to 9 stand in passages of one kind, 10 to 19 in those of another, 20 nowhere.
    draws = np.random.default_rng(0)
    counts = np.zeros((21, 60))
    counts[:10, :30] = draws.poisson(2.0, (10, 30))
    counts[10:20, 30:] = draws.poisson(2.0, (10, 30))
    vectors = topic_vectors(sparse.csr_matrix(counts), d_model=4, seed=0)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    likeness = vectors @ vectors.T
    of_one = np.concatenate([likeness[:10, :10].ravel(), likeness[10:20, 10:20].ravel()])
    assert of_one.mean() > 0.4
    assert likeness[:10, 10:20].max() < 0.0
    assert abs(likeness[20, :20]).max() < 1.0
    np.testing.assert_array_equal(vectors, topic_vectors(sparse.csr_matrix(counts), d_model=4, seed=0))
