"""How much of every test set stands in every training set: the share of its n-grams of words that training has too.

A text with fewer than n words counts as one n-gram, its whole. Only the n-grams of the test sets are kept in memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from pipeline.data.cleaning import words_of


def ngrams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """The n-grams of each line of a text, in order, with repeats."""
    for line in text.split("\n"):
        words = words_of(line)
        for start in range(max(1 if words else 0, len(words) - n + 1)):
            yield tuple(words[start : start + n])


def overlap(
    tests: Mapping[str, Iterable[str]], trains: Mapping[str, Iterable[str]], *, n: int
) -> dict[str, dict[str, float]]:
    """For each test set: its number of n-grams, and for each training set the share of them that it contains."""
    counts = {name: Counter(gram for text in texts for gram in ngrams(text, n)) for name, texts in tests.items()}
    wanted = set().union(*counts.values())
    table = {name: {"num_ngrams": float(grams.total())} for name, grams in counts.items()}
    for train, texts in trains.items():
        seen = {gram for text in texts for gram in ngrams(text, n) if gram in wanted}
        for name, grams in counts.items():
            found = sum(count for gram, count in grams.items() if gram in seen)
            table[name][train] = round(found / max(1, grams.total()), 6)
    return table
