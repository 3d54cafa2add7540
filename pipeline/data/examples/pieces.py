"""Pieces of documents for a language model that reads both ways: each neighbour is predicted once in each direction.

A piece is at most `length` consecutive tokens of one document, and begins with the last token of the piece before it:
of two neighbours in a document one piece has both, in which either is predicted from the other's side.
B pieces, T tokens of the longest, N pieces in all.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pipeline.data.batches import Batch, Sizes
from pipeline.data.token_arrays import TokenArrays

AHEAD, BACK = "ahead", "back"
"""Names of the two losses: the next token, and the token before."""


@dataclass(frozen=True)
class PieceBatch(Batch):
    """Texts, right-padded. Ahead, each real token but the first is a target; back, each but the last."""

    input_ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]


@dataclass(frozen=True)
class DocumentPieces:
    """All documents in pieces, the same in every epoch. ValueError when no document has two tokens."""

    tokens: TokenArrays
    length: int
    pad_id: int

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"a piece has to hold at least 2 tokens, found {self.length}")
        if not len(self._begins):
            raise ValueError(f"none of {self.tokens.num_documents} documents has two tokens: nothing can be predicted")

    @cached_property
    def _counts(self) -> Int[np.ndarray, "D"]:
        """Pieces of each document."""
        neighbours = np.maximum(np.diff(self.tokens.document_starts) - 1, 0)
        return np.asarray(-(-neighbours // (self.length - 1)))

    @cached_property
    def _begins(self) -> Int[np.ndarray, "N"]:
        """Position of the first token of each piece."""
        document = np.repeat(np.arange(len(self._counts)), self._counts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(self._counts) - self._counts, self._counts)
        return np.asarray(self.tokens.document_starts[document] + number * (self.length - 1))

    @cached_property
    def _ends(self) -> Int[np.ndarray, "N"]:
        """Position behind the last token of each piece."""
        ends = np.repeat(self.tokens.document_starts[1:], self._counts)
        return np.asarray(np.minimum(self._begins + self.length, ends))

    def sizes(self, epoch: int) -> Sizes:
        """Tokens of each piece; in either direction one of them is no target."""
        lengths = self._ends - self._begins
        return Sizes(lengths=lengths, num_targets={AHEAD: lengths - 1, BACK: lengths - 1})

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> PieceBatch:
        """The right-padded batch of some pieces; the epoch makes no difference."""
        begins, ends = self._begins[indices], self._ends[indices]
        places = begins[:, None] + np.arange(int((ends - begins).max()))
        exists = places < ends[:, None]
        found = self.tokens.gather(np.where(exists, places, begins[:, None]))
        return PieceBatch(
            input_ids=torch.from_numpy(np.where(exists, found, self.pad_id)), attention_mask=torch.from_numpy(exists)
        )
