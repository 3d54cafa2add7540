"""The sentences of the benchmarks: those of a folder in the layout of Multi30k, or generated ones of like lengths."""

import random
from pathlib import Path

import numpy as np

TEST = "test_2016_flickr"


def read_lines(path: Path) -> list[str]:
    """The lines of a file, which end at a line feed alone; SystemExit where there is no file."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def read_pairs(folder: Path | None) -> list[tuple[str, str]]:
    """Sentence pairs of train.en and train.de of a folder; without one, generated words and the same backwards."""
    if folder:
        src, tgt = (read_lines(folder / f"train.{language}") for language in ("en", "de"))
        if len(src) != len(tgt):
            raise SystemExit(f"{folder}: train.en has {len(src)} lines, train.de {len(tgt)}")
        return list(zip(src, tgt, strict=True))
    drawn = np.random.default_rng(0)
    words = ["".join(drawn.choice(list("abcdefghijklmnoprstuvw"), size=drawn.integers(2, 9))) for _ in range(8000)]
    weights = 1.0 / np.arange(1, len(words) + 1)
    lines = [
        " ".join(drawn.choice(words, size=max(4, int(drawn.normal(12, 4))), p=weights / weights.sum()))
        for _ in range(8000)
    ]
    return [(line, " ".join(reversed(line.split()))) for line in lines]


def generated_sentences(count: int) -> list[str]:
    """Sentences of 4 to 22 words, frequent ones more often."""
    drawn = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "il", "or", "us")]
    words = ["".join(drawn.choices(syllables, k=drawn.randint(1, 3))) for _ in range(6000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    return [" ".join(drawn.choices(words, weights, k=drawn.randint(4, 22))) for _ in range(count)]
