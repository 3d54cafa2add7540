"""How much of every test set stands in every training set: the share of its n-grams of words that training has too.

A text with fewer than n words counts as one n-gram, its whole. Memory holds 64 bits of each n-gram of the test sets,
and nothing of training; that two different ones get the same 64 bits is as good as impossible. G number of n-grams.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import numpy as np
from jaxtyping import UInt64

from pipeline.chunks import chunks
from pipeline.data.cleaning import words_of
from pipeline.data.draws import draw_bits

_CHARACTERS_AT_ONCE = 1_000_000


def overlap(
    tests: Mapping[str, Iterable[str]], trains: Mapping[str, Iterable[str]], *, n: int
) -> dict[str, dict[str, float]]:
    """For each test set: its number of n-grams, and for each training set the share of them that it contains."""
    none = np.empty(0, dtype=np.uint64)
    counts = {
        name: np.unique(np.concatenate([none, *hashed_ngrams(texts, n)]), return_counts=True)
        for name, texts in tests.items()
    }
    wanted = np.unique(np.concatenate([none, *(grams for grams, _ in counts.values())]))
    table = {name: {"num_ngrams": float(repeats.sum())} for name, (_, repeats) in counts.items()}
    for train, texts in trains.items():
        seen = np.zeros(len(wanted), dtype=bool)
        for grams in hashed_ngrams(texts, n) if len(wanted) else ():
            place = np.minimum(np.searchsorted(wanted, grams), len(wanted) - 1)
            seen[place[wanted[place] == grams]] = True
        for name, (grams, repeats) in counts.items():
            found = int(repeats[seen[np.searchsorted(wanted, grams)]].sum())
            table[name][train] = round(found / max(1, int(repeats.sum())), 6)
    return table


def hashed_ngrams(texts: Iterable[str], n: int) -> Iterator[UInt64[np.ndarray, "G"]]:
    """The n-grams of each line of the texts, with repeats, as a number each; those of some texts at a time."""
    for chunk in chunks(texts, len, size_at_once=_CHARACTERS_AT_ONCE):
        yield _hashed([words for text in chunk for line in text.split("\n") if (words := words_of(line))], n)


def _hashed(lines: list[list[str]], n: int) -> UInt64[np.ndarray, "G"]:
    """An n-gram is the sum of its words' hashes, each times a random odd number of its place."""
    lengths = np.array([len(words) for words in lines], dtype=np.int64)
    number: dict[str, int] = {}
    words = np.array([number.setdefault(word, len(number)) for word in chain.from_iterable(lines)], dtype=np.int64)
    known = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in number)
    hashes = np.append(np.frombuffer(known, dtype="<u8")[words], np.zeros(n, dtype=np.uint64))
    ends = lengths.cumsum()
    end_of_word, position = np.repeat(ends, lengths), np.arange(len(words))
    begins = np.flatnonzero((position + n <= end_of_word) | (position == np.repeat(ends - lengths, lengths)))
    factors = draw_bits(n, np.arange(n)) | np.uint64(1)
    grams = np.zeros(len(begins), dtype=np.uint64)
    for place in range(n):
        # Sums and products wrap round modulo 2^64, which is meant.
        grams += np.where(begins + place < end_of_word[begins], hashes[begins + place] * factors[place], np.uint64(0))
    return grams
