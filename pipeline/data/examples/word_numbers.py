"""Running text as word numbers, for methods that look at the words around a word. T words of the whole text."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from pipeline.text.words import Vocabulary


@dataclass(frozen=True)
class Passages:
    """All passages behind each other. A passage is a paragraph: no window crosses its border."""

    words: Int32[np.ndarray, "T"]
    """Numbers in the vocabulary; other words are left out, as if they were not in the text."""
    passage: Int32[np.ndarray, "T"]
    """Which passage each word belongs to, rising."""


def encode_passages(passages: Iterable[Sequence[str]], vocabulary: Vocabulary) -> Passages:
    """The known words of all passages, which may come one at a time: of each word four bytes are held, and no text."""
    words, lengths = array("i"), array("i")
    for passage in passages:
        known = vocabulary.encode(passage)
        words.extend(known)
        lengths.append(len(known))
    return Passages(
        words=np.array(words, dtype=np.int32), passage=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    )
