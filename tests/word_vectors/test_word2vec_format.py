"""The files are those of word2vec: gensim reads ours, ours reads gensim's, and damage is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors

from pipeline.data.word2vec import read_vectors, write_counts, write_vectors
from pipeline.evaluation.word_map import cluster_words, map_words
from pipeline.evaluation.word_similarity import WordVectors
from pipeline.inference.word_folder import Composer, open_words, save_words
from pipeline.text.subwords import Subwords
from pipeline.text.words import Vocabulary

WORDS = ("the", "na\u00efve", "\u6771\u4eac")
MATRIX = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
# Bytes that look like separators.
MATRIX[1, 0] = np.frombuffer(b"\n \n ", dtype="<f4")[0]
VOCABULARY = Vocabulary(WORDS, np.array([30, 20, 10]))
SUBWORDS = Subwords(num_words=3, num_buckets=7, min_length=3, max_length=6)


def test_gensim_reads_our_vectors_and_counts(tmp_path: Path) -> None:
    save_words(tmp_path / "words", VOCABULARY, MATRIX, method="skipgram")
    vectors = KeyedVectors.load_word2vec_format(
        str(tmp_path / "words/vectors.bin"), binary=True, fvocab=str(tmp_path / "words/vocabulary.txt")
    )
    assert tuple(vectors.index_to_key) == WORDS
    np.testing.assert_array_equal(vectors.vectors, MATRIX)
    assert [vectors.get_vecattr(word, "count") for word in WORDS] == [30, 20, 10]


def test_we_read_what_gensim_writes(tmp_path: Path) -> None:
    theirs = KeyedVectors(5)
    theirs.add_vectors(WORDS, MATRIX)
    theirs.save_word2vec_format(str(tmp_path / "vectors.bin"), binary=True)
    words, matrix = read_vectors(tmp_path / "vectors.bin")
    assert words == WORDS
    np.testing.assert_array_equal(matrix, MATRIX)


def test_a_folder_opens_as_it_was_saved(tmp_path: Path) -> None:
    table = torch.randn(10, 5)
    save_words(tmp_path / "a", VOCABULARY, MATRIX, method="svd")
    save_words(tmp_path / "b", VOCABULARY, MATRIX, method="fasttext", composer=Composer(SUBWORDS, table))
    plain, composed = open_words(tmp_path / "a"), open_words(tmp_path / "b")
    assert (plain.method, plain.words, plain.composer) == ("svd", WORDS, None)
    np.testing.assert_array_equal(composed.matrix, MATRIX)
    assert composed.composer is not None and composed.composer.subwords == SUBWORDS
    np.testing.assert_array_equal(composed.composer.table, table)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"words\n", "expected the numbers of words and dimensions, found b'words'"),
        (b"2 1\na \0\0\0\0\nb \0\0", "ends within word 2 of 2"),
        (b"1 1\na", "ends within word 1 of 1"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "vectors.bin").write_bytes(data)
    with pytest.raises(ValueError, match=message) as raised:
        read_vectors(tmp_path / "vectors.bin")
    assert str(tmp_path / "vectors.bin") in str(raised.value)


def test_folders_that_are_missing_or_hold_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder of word vectors"):
        open_words(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="model_type is 'gpt2', expected 'word_vectors'"):
        open_words(tmp_path)


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_words(tmp_path / "b", VOCABULARY, MATRIX, method="fasttext", composer=Composer(SUBWORDS, torch.zeros(9, 5)))
    with pytest.raises(ValueError, match=r"the table has the shape \(9, 5\), config.json says \(10, 5\)"):
        open_words(tmp_path / "b")


def test_files_are_the_same_bytes_for_the_same_vectors(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_vectors(tmp_path / name, WORDS, MATRIX)
        write_counts(tmp_path / f"{name}.txt", WORDS, VOCABULARY.counts)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.txt").read_text() == "the 30\nna\u00efve 20\n\u6771\u4eac 10\n"


def _planted() -> WordVectors:
    """Thirty words around three corners."""
    random = np.random.default_rng(0)
    matrix = np.repeat(np.eye(3, 6), 10, axis=0)[np.arange(30) % 3 * 10] + 0.05 * random.normal(size=(30, 6))
    return WordVectors([f"word{i}" for i in range(30)], matrix)


def test_clusters_are_the_planted_ones_numbered_by_their_most_frequent_word() -> None:
    clusters = cluster_words(_planted(), num_words=24, num_clusters=3, seed=0)
    assert clusters.of_word.tolist() == [0, 1, 2] * 8
    assert 0.95 < clusters.explained < 1


def test_the_map_keeps_clusters_together_and_is_the_same_for_the_same_seed() -> None:
    vectors = _planted()
    clusters = cluster_words(vectors, num_words=30, num_clusters=3, seed=0)
    mapped, again = (map_words(vectors, clusters, num_skipped=3, num_words=24, num_neighbours=2, seed=0) for _ in "ab")
    assert mapped == again
    assert [one.word for one in mapped] == [f"word{i}" for i in range(3, 27)]
    for one in mapped:
        gaps = [((one.x - two.x) ** 2 + (one.y - two.y) ** 2, two) for two in mapped if two is not one]
        assert min(gaps, key=lambda gap: gap[0])[1].cluster == one.cluster
        assert all(int(word.removeprefix("word")) % 3 == one.cluster for word in one.nearest)


def test_a_small_vocabulary_leaves_out_fewer_words() -> None:
    vectors = WordVectors(["a", "b", "c"], np.eye(3))
    clusters = cluster_words(vectors, num_words=10, num_clusters=5, seed=0)
    mapped = map_words(vectors, clusters, num_skipped=2, num_words=2, num_neighbours=1, seed=0)
    assert [one.word for one in mapped] == ["b", "c"]
