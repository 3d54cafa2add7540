"""Rows for causal language modelling out of consecutive tokens of documents: nothing is predicted across a border.

A document of n tokens has n - 1 places: place i shows token i and asks for token i + 1. Rows are made of places, so the
last token of a document, behind which there is nothing to predict, is never an input, and every place is a target.
B rows, T places of the longest row, D1 number of documents + 1.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int

from pipeline.data.batches import CausalBatch
from pipeline.data.token_arrays import TokenArrays


@dataclass(frozen=True)
class Places:
    """The places of all documents as one long array."""

    tokens: TokenArrays

    def __post_init__(self) -> None:
        if self.count == 0:
            raise ValueError(f"none of {self.tokens.num_documents} documents has two tokens: nothing can be predicted")

    @cached_property
    def starts(self) -> Int[np.ndarray, "D1"]:
        """The first place of each document, and the number of all places."""
        lengths = np.diff(self.tokens.document_starts)
        return np.concatenate([[0], np.cumsum(np.maximum(lengths - 1, 0))])

    @property
    def count(self) -> int:
        """Number of places: tokens that have a next token in their document."""
        return int(self.starts[-1])

    def batch(
        self,
        places: Int[np.ndarray, "B T"],
        exists: Bool[np.ndarray, "B T"],
        is_target: Bool[np.ndarray, "B T"],
        *,
        pad_id: int,
    ) -> CausalBatch:
        """The batch whose rows are made of `places`, where they exist; a row is padded on the right.

        A new segment begins where the places jump and where a document begins.
        """
        safe = np.where(exists, places, 0)
        document = np.searchsorted(self.starts, safe, side="right") - 1
        position = self.tokens.document_starts[document] + safe - self.starts[document]
        begins = np.ones(places.shape, dtype=bool)
        begins[:, 1:] = (safe[:, 1:] != safe[:, :-1] + 1) | (safe[:, 1:] == self.starts[document[:, 1:]])
        columns = np.arange(places.shape[1])
        begin = np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
        return CausalBatch(
            input_ids=torch.from_numpy(np.where(exists, self.tokens.gather(position), pad_id)),
            labels=torch.from_numpy(np.where(exists, self.tokens.gather(position + 1), pad_id)),
            is_target=torch.from_numpy(is_target & exists),
            segment_ids=torch.from_numpy(np.where(exists, np.cumsum(begins, axis=1) - 1, -1)),
            position_ids=torch.from_numpy(np.where(exists, columns - begin, 0)),
        )
