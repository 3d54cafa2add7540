"""How often words stand near each other: counted for the whole text, and its cells as training examples.

V words, N rows of a batch, P cells of one row in an example.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from pipeline.data.batches import Batch, Sizes
from pipeline.data.draws import draw_uniform
from pipeline.data.examples.word_numbers import Passages
from pipeline.data.token_arrays import TokenArrays

Weighting = Literal["flat", "linear", "harmonic"]


def distance_weight(weighting: Weighting, distance: int, window: int) -> float:
    """How much a context word counts: 1, falling evenly as with windows of random width, or 1 / distance."""
    match weighting:
        case "flat":
            return 1.0
        case "linear":
            return (window - distance + 1) / window
        case "harmonic":
            return 1.0 / distance


def count_cooccurrences(passages: Passages, *, num_words: int, window: int, weighting: Weighting) -> sparse.csr_matrix:
    """The symmetric V x V matrix of weighted counts of words at most `window` apart in one passage."""
    words, passage = passages.words, passages.passage
    total = sparse.csr_matrix((num_words, num_words), dtype=np.float64)
    for distance in range(1, window + 1):
        together = passage[:-distance] == passage[distance:]
        first, second = words[:-distance][together], words[distance:][together]
        weights = np.full(len(first), distance_weight(weighting, distance, window))
        total = total + sparse.coo_matrix((weights, (first, second)), total.shape).tocsr()
    both = (total + total.T).tocsr()
    both.sort_indices()
    return both


def count_in_passages(tokens: TokenArrays, *, num_tokens: int, length: int) -> sparse.csr_matrix:
    """How often each of `num_tokens` tokens (rows) stands in each passage (columns): `length` tokens of a document."""
    positions = np.arange(tokens.num_tokens)
    document = np.searchsorted(tokens.document_starts, positions, side="right") - 1
    within = (positions - tokens.document_starts[document]) // length
    _, passage = np.unique(np.stack([document, within]), axis=1, return_inverse=True)
    shape = (num_tokens, int(passage.max()) + 1)
    ones = np.ones(len(positions))
    return sparse.coo_matrix((ones, (tokens.gather(positions), passage)), shape).tocsr()


@dataclass(frozen=True)
class CellBatch(Batch):
    """Cells of the co-occurrence matrix, right-padded rows."""

    rows: Int[Tensor, "N"]
    columns: Int[Tensor, "N P"]
    counts: Float[Tensor, "N P"]
    is_cell: Bool[Tensor, "N P"]
    """False at padding."""


@dataclass(frozen=True)
class CellExamples:
    """Up to P non-zero cells that follow each other in one row; the same in every epoch."""

    columns: Int[np.ndarray, "cells"]
    counts: Float[np.ndarray, "cells"]
    rows: Int[np.ndarray, "examples"]
    """Row of each example."""
    starts: Int[np.ndarray, "examples"]
    """First cell of each example."""
    lengths: Int[np.ndarray, "examples"]
    """Cells of each example."""

    def sizes(self, epoch: int) -> Sizes:
        """Every cell is a target."""
        return Sizes(lengths=self.lengths, num_targets={"loss": self.lengths})

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> CellBatch:
        """The right-padded batch of some examples."""
        lengths = self.lengths[indices]
        places = np.arange(int(lengths.max()))
        is_cell: Bool[np.ndarray, "B P"] = places < lengths[:, None]
        at = np.where(is_cell, self.starts[indices][:, None] + places, 0)
        return CellBatch(
            rows=torch.from_numpy(self.rows[indices].astype(np.int64)),
            columns=torch.from_numpy(self.columns[at].astype(np.int64)),
            counts=torch.from_numpy(np.where(is_cell, self.counts[at], 0.0).astype(np.float32)),
            is_cell=torch.from_numpy(is_cell),
        )


def cell_examples(counts: sparse.csr_matrix, *, cells_per_example: int) -> CellExamples:
    """The non-zero cells of a matrix, cut into examples."""
    cells_of_row = np.diff(counts.indptr)
    examples_of_row = -(-cells_of_row // cells_per_example)
    rows = np.repeat(np.arange(len(cells_of_row)), examples_of_row)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(examples_of_row) - examples_of_row, examples_of_row)
    starts = counts.indptr[rows].astype(np.int64) + number * cells_per_example
    return CellExamples(
        columns=counts.indices,
        counts=counts.data,
        rows=rows,
        starts=starts,
        lengths=np.minimum(cells_per_example, counts.indptr[rows + 1] - starts),
    )


def hold_out(counts: sparse.csr_matrix, *, share: float, seed: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """The cells of a symmetric matrix in two parts: the rest, and a random share. (i, j) goes where (j, i) goes."""
    cells = counts.tocoo()
    first, second = np.minimum(cells.row, cells.col), np.maximum(cells.row, cells.col)
    is_held_out = draw_uniform(seed, first, second) < share
    parts = [
        sparse.csr_matrix((cells.data[chosen], (cells.row[chosen], cells.col[chosen])), counts.shape)
        for chosen in (~is_held_out, is_held_out)
    ]
    return parts[0], parts[1]
