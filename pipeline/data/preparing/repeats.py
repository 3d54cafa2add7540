"""Which of many keys came before: the keys wait on disk, and memory holds one byte of each.

N number of keys.
"""

import os
import tempfile
import weakref
from pathlib import Path

import numpy as np
from jaxtyping import Bool

_KEY = np.dtype([("high", ">u8"), ("low", ">u4")])
_KEYS_AT_ONCE = 1_000_000


class KeyFile:
    """An unnamed file of keys of 12 bytes, which goes away with this object."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` has the room; without it, that of temporary files."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed with this object, below)
        weakref.finalize(self, self._file.close)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, key: bytes) -> None:
        """Adds a key, as `key_of` makes it."""
        assert len(key) == _KEY.itemsize, key
        self._file.write(key)
        self._count += 1

    def repeats(self, *, at_once: int = _KEYS_AT_ONCE) -> Bool[np.ndarray, "N"]:
        """Of each key, whether an equal one came before it.

        The file is gone through once for every `at_once` keys: equal keys have equal remainders, so that those of one
        remainder are compared among themselves.
        """
        self._file.flush()
        found = np.zeros(len(self), dtype=bool)
        num_parts = 1 + len(self) // at_once
        for part in range(num_parts):
            numbers, keys = [], []
            for begin in range(0, len(self), at_once):
                size = min(at_once, len(self) - begin) * _KEY.itemsize
                block = np.frombuffer(os.pread(self._file.fileno(), size, begin * _KEY.itemsize), dtype=_KEY)
                here = np.flatnonzero(block["low"] % num_parts == part)
                numbers.append(here + begin)
                keys.append(block[here])
            if not numbers:
                break
            number, key = np.concatenate(numbers), np.concatenate(keys)
            high, low = key["high"].astype(np.uint64), key["low"].astype(np.uint32)
            order = np.lexsort((low, high))  # stable: the first of equal ones stays the first
            high, low = high[order], low[order]
            found[number[order[1:][(high[1:] == high[:-1]) & (low[1:] == low[:-1])]]] = True
        return found
