"""The binary format of word2vec, which gensim's KeyedVectors opens, and the word counts beside it.

V words, D dimensions.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int


def write_vectors(path: Path, words: Sequence[str], matrix: Float[np.ndarray, "V D"]) -> None:
    """Writes `V D`, then for each word its text, a space, D little-endian float32 and a line feed."""
    with path.open("wb") as output:
        output.write(f"{matrix.shape[0]} {matrix.shape[1]}\n".encode())
        for word, row in zip(words, matrix.astype("<f4"), strict=True):
            output.write(f"{word} ".encode() + row.tobytes() + b"\n")


def read_vectors(path: Path) -> tuple[tuple[str, ...], Float[np.ndarray, "V D"]]:
    """Reads what `write_vectors` wrote, and what word2vec and gensim write, whose rows may lack the line feed.

    Raises ValueError that names the file when it is missing, damaged or too short.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    data = path.read_bytes()
    head, _, _ = data.partition(b"\n")
    try:
        num_words, d_model = (int(number) for number in head.split())
    except ValueError as error:
        raise ValueError(f"{path}: expected the numbers of words and dimensions, found {head[:40]!r}") from error
    matrix = np.empty((num_words, d_model), dtype=np.float32)
    words: list[str] = []
    at = len(head) + 1
    for number in range(num_words):
        space = data.find(b" ", at)
        if space < 0 or space + 1 + 4 * d_model > len(data):
            raise ValueError(f"{path}: ends within word {number + 1} of {num_words}")
        words.append(data[at:space].lstrip(b"\n").decode("utf-8"))
        at = space + 1 + 4 * d_model
        matrix[number] = np.frombuffer(data[space + 1 : at], dtype="<f4")
    return tuple(words), matrix


def write_counts(path: Path, words: Sequence[str], counts: Int[np.ndarray, "V"]) -> None:
    """Writes one word and its count a line, as gensim's `fvocab` expects them."""
    lines = [f"{word} {count}\n" for word, count in zip(words, counts.tolist(), strict=True)]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
