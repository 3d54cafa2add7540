"""Words, vocabulary and character n-grams against definitions and against gensim."""

import numpy as np
import pytest
from gensim.models.fasttext import ft_ngram_hashes
from gensim.models.fasttext_inner import compute_ngrams

from pipeline.text.subwords import Subwords, character_ngrams, pieces_of
from pipeline.text.words import build_vocabulary, passages_of, words_of


def test_words_are_runs_of_letters_in_lower_case_with_the_possessive_apart() -> None:
    text = "The Nation\u2019s 3rd budget of 1,200 dollars isn't Jones' own; na\u00efve well-known U.S."
    assert words_of(text) == (
        [
            "the",
            "nation",
            "'s",
            "rd",
            "budget",
            "of",
            "dollars",
            "isn't",
            "jones",
            "own",
            "naïve",
            "well",
            "known",
            "u",
            "s",
        ]
    )


def test_every_paragraph_with_words_is_a_passage() -> None:
    assert list(passages_of(["One two.\n1234\nThree", "Four"])) == [["one", "two"], ["three"], ["four"]]


def test_the_vocabulary_is_in_order_of_falling_frequency_and_then_of_the_alphabet() -> None:
    vocabulary = build_vocabulary([["b", "a", "c"], ["c", "b", "a", "c", "rare"]], min_count=2)
    assert vocabulary.words == ("c", "a", "b")
    assert vocabulary.counts.tolist() == [3, 2, 2]
    assert vocabulary.encode(["a", "rare", "c"]) == [1, 0]


def test_a_text_without_a_frequent_word_is_refused_with_its_most_frequent_one() -> None:
    with pytest.raises(ValueError, match="min_count = 3 times; the most frequent, 'a', occurs 2"):
        build_vocabulary([["a", "a", "b"]], min_count=3)
    with pytest.raises(ValueError, match="'none', occurs 0"):
        build_vocabulary([], min_count=1)


def test_ngrams_are_those_of_the_definition() -> None:
    # Bojanowski et al. 2017, section 3.2: `where` with n = 3.
    assert character_ngrams("where", min_length=3, max_length=3) == ["<wh", "whe", "her", "ere", "re>"]
    assert sorted(character_ngrams("ab", min_length=1, max_length=9)) == sorted(
        ["a", "b", "<a", "ab", "b>", "<ab", "ab>", "<ab>"]
    )


@pytest.mark.parametrize("word", ["a", "where", "na\u00efve", "\u6771\u4eac", "congress"])
def test_ngrams_and_their_buckets_are_those_of_gensim(word: str) -> None:
    assert sorted(character_ngrams(word, min_length=3, max_length=6)) == sorted(compute_ngrams(word, 3, 6))
    rows = Subwords(num_words=10, num_buckets=97, min_length=3, max_length=6).bucket_rows(word)
    assert sorted(rows) == sorted(10 + bucket for bucket in ft_ngram_hashes(word, 3, 6, 97))


def test_a_word_has_its_own_row_and_then_those_of_its_ngrams() -> None:
    subwords = Subwords(num_words=2, num_buckets=50, min_length=3, max_length=6)
    pieces = pieces_of(["cat", "a"], subwords)
    assert pieces.starts.tolist() == [0, 7, 9]
    np.testing.assert_array_equal(pieces.rows, [0, *subwords.bucket_rows("cat"), 1, *subwords.bucket_rows("a")])
