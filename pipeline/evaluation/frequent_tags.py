"""The baseline of tagging: what a word was most often tagged as, whatever stands around it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence


def frequent_tags(sentences: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, str]:
    """The most frequent tag of each word in (words, tags); of equally frequent ones the first of the alphabet."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for words, tags in sentences:
        for word, tag in zip(words, tags, strict=True):
            counts[word][tag] += 1
    return {word: min(found, key=lambda tag: (-found[tag], tag)) for word, found in counts.items()}


def tag_by_frequency(known: Mapping[str, str], words: Sequence[str]) -> list[str]:
    """The tags of a sentence; O for a word that was never seen."""
    return [known.get(word, "O") for word in words]
