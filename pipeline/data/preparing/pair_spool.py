"""Pairs that wait on disk while it is decided which of them stay: of each, memory holds a key, a place and a group.

A number is the place of a pair in the order in which the pairs came. Legend: N pairs, U different keys.
"""

import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from pipeline.data.records import Pair

_KEY = np.dtype([("high", ">u8"), ("low", ">u4")])


class PairSpool:
    """An unnamed file of pairs, which goes away with this object."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` has the room; without it, that of temporary files."""
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed with this object, below)
        weakref.finalize(self, self._file.close)
        self._starts = array("q", [0])
        self._keys = bytearray()
        self._homes = array("i")
        self._number_of: dict[str, int] = {}
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._homes)

    def append(self, pair: Pair, key: bytes) -> None:
        """Adds a pair; those with equal keys count as repeats of each other."""
        assert len(key) == _KEY.itemsize, key
        line = json.dumps([pair.id, pair.src, pair.tgt, pair.source, pair.reference], ensure_ascii=False).encode()
        self._file.write(line)
        self._starts.append(self._starts[-1] + len(line))
        self._keys += key
        if pair.group not in self._number_of:
            self._number_of[pair.group] = len(self._names)
            self._names.append(pair.group)
        self._homes.append(self._number_of[pair.group])

    def group(self, number: int) -> str:
        """The group of a pair."""
        return self._names[self._homes[number]]

    def pair(self, number: int) -> Pair:
        """Reads a pair back."""
        self._file.flush()
        start, end = self._starts[number], self._starts[number + 1]
        id_, src, tgt, source, reference = json.loads(os.pread(self._file.fileno(), end - start, start))
        return Pair(id_, src, tgt, source, self.group(number), reference)

    def repeats(self, *, without: Collection[bytes]) -> "Repeats":
        """The numbers of all pairs by key, but for some keys."""
        keys = _as_keys(self._keys)
        high, low = keys["high"].astype(np.uint64), keys["low"].astype(np.uint32)
        order = np.lexsort((low, high))  # stable: repeats stay in the order in which they came
        high, low = high[order], low[order]
        is_new = np.ones(len(order), dtype=bool)
        is_new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        borders = np.append(np.flatnonzero(is_new), len(order))
        is_wanted = np.ones(len(borders) - 1, dtype=bool)
        for one in _as_keys(b"".join(without)):
            begin, end = np.searchsorted(high, one["high"].astype(np.uint64), "left"), len(high)
            while begin < end and high[begin] == one["high"]:
                if low[begin] == one["low"]:
                    is_wanted[np.searchsorted(borders, begin, "right") - 1] = False
                begin += 1
        return Repeats(order, borders, is_wanted)


def _as_keys(data: bytes | bytearray) -> np.ndarray:
    return np.frombuffer(data, dtype=_KEY) if data else np.empty(0, dtype=_KEY)


@dataclass(frozen=True)
class Repeats:
    """The numbers of the pairs, those with one key beside each other."""

    order: Int[np.ndarray, "N"]
    borders: Int[np.ndarray, "U1"]
    """Where the numbers of each key begin, and behind the last one."""
    is_wanted: Bool[np.ndarray, "U"]

    @property
    def num_keys(self) -> int:
        """Different keys, unwanted ones included."""
        return len(self.is_wanted)

    @property
    def num_unwanted_pairs(self) -> int:
        """Pairs whose key is unwanted, repeats included."""
        return int(np.diff(self.borders)[~self.is_wanted].sum())

    def __iter__(self) -> Iterator[list[int]]:
        """The numbers of each wanted key, rising; keys in the order in which they first came."""
        firsts = self.order[self.borders[:-1]]
        for key in np.argsort(firsts, kind="stable"):
            if self.is_wanted[key]:
                yield self.order[self.borders[key] : self.borders[key + 1]].tolist()
