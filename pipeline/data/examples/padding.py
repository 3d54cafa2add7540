"""Rows of different lengths -> one right-padded tensor. B rows, T the longest row."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


def pad_ids(rows: Sequence[np.ndarray], pad_id: int, *, length: int = 0) -> Int[Tensor, "B T"]:
    """The ids of each row with `pad_id` behind them, as wide as the longest row and at least `length`."""
    padded = np.full((len(rows), max(length, *map(len, rows))), pad_id, dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(padded)


def pad_mask(rows: Sequence[np.ndarray], *, length: int = 0) -> Bool[Tensor, "B T"]:
    """The flags of each row with False behind them, as wide as the longest row and at least `length`."""
    padded = np.zeros((len(rows), max(length, *map(len, rows))), dtype=bool)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return torch.from_numpy(padded)
