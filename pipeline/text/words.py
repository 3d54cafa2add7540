"""Words of running text, and the vocabulary of those that occur often enough. V words."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

_APOSTROPHES = str.maketrans("\u2019\u02bc", "''")
_WORD = re.compile(r"'s\b|[^\W\d_]+(?:'(?!s\b)[^\W\d_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, with the apostrophes inside them.

    The ending 's is a word of its own, so that `nation's` counts for `nation`. Figures and signs are left out.
    """
    return _WORD.findall(text.lower().translate(_APOSTROPHES))


def passages_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """The words of every paragraph, which is a line of a text; paragraphs without words are left out."""
    for text in texts:
        for line in text.split("\n"):
            words = words_of(line)
            if words:
                yield words


@dataclass(frozen=True)
class Vocabulary:
    """Words in order of falling frequency, equal ones in alphabetical order; a word's number is its place."""

    words: tuple[str, ...]
    counts: Int[np.ndarray, "V"]
    """How often each occurs in the training text."""

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, words: Sequence[str]) -> list[int]:
        """The numbers of words; those outside the vocabulary are left out."""
        numbers = self.numbers
        return [numbers[word] for word in words if word in numbers]


def build_vocabulary(passages: Iterable[Sequence[str]], *, min_count: int) -> Vocabulary:
    """The words that occur at least `min_count` times. Raises ValueError when there is none."""
    counts = Counter(word for passage in passages for word in passage)
    kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
    if not kept:
        word, count = counts.most_common(1)[0] if counts else ("none", 0)
        raise ValueError(f"no word occurs min_count = {min_count} times; the most frequent, '{word}', occurs {count}")
    return Vocabulary(tuple(word for _, word in kept), np.array([-negative for negative, _ in kept], dtype=np.int64))
