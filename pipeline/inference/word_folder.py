"""The folder of word vectors: vectors.bin and vocabulary.txt, which gensim opens, and config.json.

fastText's folder also holds what composes the vector of a word that is not among them: model.safetensors with one row
for each word and one for each bucket of n-grams. V words, D dimensions, R rows.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.artifacts import CONFIG, load_model, publish, read_json, save_model, write_json
from pipeline.data.word2vec import read_vectors, write_counts, write_vectors
from pipeline.text.subwords import Subwords
from pipeline.text.words import Vocabulary

VECTORS = "vectors.bin"
COUNTS = "vocabulary.txt"
_TABLE = "table.weight"


@dataclass(frozen=True)
class Composer:
    """Composes the vector of any word from its character n-grams."""

    subwords: Subwords
    table: Float[Tensor, "R D"]

    def vector(self, word: str) -> Float[np.ndarray, "D"]:
        """The mean of the vectors of a word's n-grams, as for a word that training has not seen."""
        rows = self.subwords.bucket_rows(word)
        if not rows:
            raise ValueError(
                f"'{word}' has no n-grams of {self.subwords.min_length} to {self.subwords.max_length} characters"
            )
        return np.asarray(self.table[rows].mean(0).numpy())


@dataclass(frozen=True)
class OpenedWords:
    """What a folder of word vectors holds; words are in order of falling frequency."""

    method: str
    words: tuple[str, ...]
    matrix: Float[np.ndarray, "V D"]
    composer: Composer | None
    """For words that are not in `words`; fastText alone has one."""


def save_words(
    folder: Path,
    vocabulary: Vocabulary,
    matrix: Float[np.ndarray, "V D"],
    *,
    method: str,
    composer: Composer | None = None,
) -> None:
    """Publishes the folder."""
    config: dict[str, Any] = {"model_type": "word_vectors", "method": method, "d_model": matrix.shape[1]}
    with publish(folder) as temporary:
        write_vectors(temporary / VECTORS, vocabulary.words, matrix)
        write_counts(temporary / COUNTS, vocabulary.words, vocabulary.counts)
        if composer:
            save_model(temporary, {**config, "subwords": asdict(composer.subwords)}, {_TABLE: composer.table})
        else:
            write_json(temporary / CONFIG, config)


def open_words(folder: Path) -> OpenedWords:
    """Reads a folder of `save_words`; ValueError names the file that is missing, damaged or does not fit."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of word vectors; run the stage word_vectors")
    config = read_json(folder / CONFIG)
    if config.get("model_type") != "word_vectors":
        raise ValueError(f"{folder / CONFIG}: model_type is {config.get('model_type')!r}, expected 'word_vectors'")
    words, matrix = read_vectors(folder / VECTORS)
    return OpenedWords(config["method"], words, matrix, _composer(folder) if "subwords" in config else None)


def _composer(folder: Path) -> Composer:
    found = load_model(folder)
    subwords = Subwords(**found.config["subwords"])
    table = found.state.get(_TABLE, torch.empty(0))
    expected = subwords.num_rows, found.config["d_model"]
    if table.shape != expected:
        raise ValueError(f"{folder}: the table has the shape {tuple(table.shape)}, config.json says {expected}")
    return Composer(subwords, table)
