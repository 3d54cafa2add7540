"""Test sets of word vectors: pairs of words with how similar people find them, and analogies."""

import math
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.records import read_lines


@dataclass(frozen=True)
class ScoredPair:
    """Two words and how similar people find them."""

    first: str
    second: str
    score: float


@dataclass(frozen=True)
class AnalogySection:
    """Questions of one kind: `a` is to `b` as `c` is to `d`, where `d` is asked for."""

    name: str
    questions: tuple[tuple[str, str, str, str], ...]


def read_pairs(path: Path) -> tuple[ScoredPair, ...]:
    """Reads WordSim-353 or SimLex-999 as gensim ships them: word, word, score between tabs; # begins a comment.

    ValueError names file and line of a fault, and a file without a pair.
    """
    pairs = []
    for number, line in read_lines(path):
        if line.startswith("#") or not line.strip():
            continue
        pair = _pair(line.split("\t"))
        if pair is None:
            raise ValueError(f"{path}:{number}: expected two words and a score between tabs, found {line[:60]!r}")
        pairs.append(pair)
    if not pairs:
        raise ValueError(f"{path}: no pair of words in this file")
    return tuple(pairs)


def _pair(fields: list[str]) -> ScoredPair | None:
    """The pair of a line, if its first columns are two words and a number."""
    if len(fields) < 3 or not fields[0].strip() or not fields[1].strip():
        return None
    try:
        score = float(fields[2])
    except ValueError:
        return None
    return ScoredPair(fields[0].lower(), fields[1].lower(), score) if math.isfinite(score) else None


def read_analogies(path: Path) -> tuple[AnalogySection, ...]:
    """Reads questions-words.txt of word2vec: `: name` begins a section, other lines are four words.

    ValueError names file and line of a fault, and a file without a question.
    """
    sections: list[tuple[str, list[tuple[str, str, str, str]]]] = []
    for number, line in read_lines(path):
        words = line.lower().split()
        if line.startswith(":"):
            sections.append((line[1:].strip(), []))
        elif len(words) == 4 and sections:
            sections[-1][1].append((words[0], words[1], words[2], words[3]))
        elif words:
            raise ValueError(f"{path}:{number}: expected four words below a ': section' line, found {line[:60]!r}")
    if not any(questions for _, questions in sections):
        raise ValueError(f"{path}: no question in this file")
    return tuple(AnalogySection(name, tuple(questions)) for name, questions in sections)
