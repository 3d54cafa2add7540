"""Character n-grams of words in hash buckets (Bojanowski et al. 2017, section 3.2), as fastText computes them.

V words, M pieces of all of them, borders = V + 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int


def character_ngrams(word: str, *, min_length: int, max_length: int) -> list[str]:
    """All n-grams of `<word>`, by place and then by length; the two brackets alone are none.

    The whole of `<word>` is among them where it is no longer than `max_length`.
    """
    text = f"<{word}>"
    return [
        text[begin : begin + length]
        for begin in range(len(text))
        for length in range(min_length, max_length + 1)
        if begin + length <= len(text) and not (length == 1 and text[begin] in "<>" and begin in (0, len(text) - 1))
    ]


def fasttext_hash(text: str) -> int:
    """32-bit FNV-1a of the UTF-8 bytes, with fastText's sign extension of the bytes above 127."""
    value = 2166136261
    for byte in text.encode("utf-8"):
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value


@dataclass(frozen=True)
class Subwords:
    """How a word is put together from rows of one table: a row for each known word, then the buckets."""

    num_words: int
    num_buckets: int
    min_length: int
    max_length: int

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return self.num_words + self.num_buckets

    @cached_property
    def _known(self) -> dict[str, int]:
        return {}

    def bucket_rows(self, word: str) -> list[int]:
        """The rows of a word's n-grams, known word or not."""
        rows = []
        for ngram in character_ngrams(word, min_length=self.min_length, max_length=self.max_length):
            if ngram not in self._known:
                self._known[ngram] = self.num_words + fasttext_hash(ngram) % self.num_buckets
            rows.append(self._known[ngram])
        return rows


@dataclass(frozen=True)
class Pieces:
    """The rows of many words behind each other: word i has `rows[starts[i] : starts[i + 1]]`."""

    rows: Int[np.ndarray, "M"]
    starts: Int[np.ndarray, "borders"]


def pieces_of(words: Sequence[str], subwords: Subwords) -> Pieces:
    """The rows of every word of the vocabulary: its own, then those of its n-grams."""
    rows = [[number, *subwords.bucket_rows(word)] for number, word in enumerate(words)]
    lengths = [len(one) for one in rows]
    return Pieces(
        rows=np.array([row for one in rows for row in one], dtype=np.int64),
        starts=np.cumsum([0, *lengths], dtype=np.int64),
    )
