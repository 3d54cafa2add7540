"""Token ids of translation pairs on disk, memory-mapped when read: an epoch touches the rows of one batch at a time.

A folder holds for each side the ids of all sentences behind one another, without EOS, and where each begins. What stays
in memory does not grow with the tokens. Legend: R rows (pairs), X tokens of a side.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer

from pipeline.artifacts import read_json, write_json

_STATE = "state.json"
_START = np.dtype("<i8")
EncodedPairs = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
"""The ids of some sources and of their targets."""


@dataclass(frozen=True)
class SentenceArray:
    """The sentences of one language."""

    tokens: Integer[np.ndarray, "X"]
    """Ids of all sentences, in memory or in a file."""
    starts: Int[np.ndarray, "R1"]
    """Position of each sentence's first token, and behind the last one."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def lengths(self) -> Int[np.ndarray, "R"]:
        """Tokens of each sentence."""
        return np.diff(self.starts).astype(np.int32)

    def row(self, number: int) -> Integer[np.ndarray, "_"]:
        """The ids of one sentence."""
        return self.tokens[self.starts[number] : self.starts[number + 1]]

    @staticmethod
    def of(sentences: Sequence[Sequence[int]]) -> "SentenceArray":
        """Sentences that are in memory."""
        starts = np.cumsum([0, *map(len, sentences)], dtype=np.int64)
        return SentenceArray(np.array([token for ids in sentences for token in ids], dtype=np.int32), starts)


@dataclass(frozen=True)
class PairArrays:
    """Both sides of the pairs, row by row."""

    src: SentenceArray
    tgt: SentenceArray

    @staticmethod
    def of(pairs: EncodedPairs) -> "PairArrays":
        """Pairs that are in memory."""
        return PairArrays(*(SentenceArray.of(side) for side in pairs))


def write_pair_arrays(folder: Path, chunks: Iterable[EncodedPairs], *, vocab_size: int, tokenizer_hash: str) -> int:
    """Writes pairs as they come, some at a time; returns how many. The same pairs give the same bytes."""
    folder.mkdir(parents=True)
    # Two bytes are enough for the vocabularies of translation, and the files are as large as the text then.
    dtype = np.dtype("<u2" if vocab_size <= 2**16 else "<i4")
    ends = {"src": 0, "tgt": 0}
    count = 0
    with ExitStack() as stack:
        tokens, starts = (
            {side: stack.enter_context((folder / f"{side}.{kind}").open("wb")) for side in ends}
            for kind in ("tokens", "starts")
        )
        for side in ends:
            starts[side].write(np.zeros(1, dtype=_START).tobytes())
        for chunk in chunks:
            count += len(chunk[0])
            for side, sentences in zip(ends, chunk, strict=True):
                array = SentenceArray.of(sentences)
                tokens[side].write(array.tokens.astype(dtype).tobytes())
                starts[side].write((array.starts[1:] + ends[side]).astype(_START).tobytes())
                ends[side] += len(array.tokens)
    write_json(folder / _STATE, {"tokenizer": tokenizer_hash, "dtype": dtype.str, "num_pairs": count})
    return count


def read_pair_arrays(folder: Path, *, tokenizer_hash: str) -> PairArrays:
    """Opens a folder of pair arrays without reading the tokens.

    Raises ValueError when it is missing, has no tokens, or was made with another tokenizer.
    """
    if not (folder / _STATE).is_file():
        raise ValueError(f"{folder}: no encoded pairs; run the stage tokenize")
    state = read_json(folder / _STATE)
    if state["tokenizer"] != tokenizer_hash:
        raise ValueError(
            f"{folder}: the pairs were encoded with the tokenizer {state['tokenizer'][:12]}, expected "
            f"{tokenizer_hash[:12]}; run the stage tokenize again"
        )
    sides = []
    for side in ("src", "tgt"):
        files = {folder / f"{side}.tokens": np.dtype(state["dtype"]), folder / f"{side}.starts": _START}
        for path in files:
            if not path.is_file() or path.stat().st_size == 0:
                raise ValueError(f"{path}: missing or empty; run the stage tokenize again")
        # As plain arrays: a view of the class memmap costs more than reading a row.
        array = SentenceArray(*(np.asarray(np.memmap(path, kind, "r")) for path, kind in files.items()))
        if len(array) != state["num_pairs"] or int(array.starts[-1]) != len(array.tokens):
            raise ValueError(f"{folder}: the files of {side} do not fit each other; run the stage tokenize again")
        sides.append(array)
    return PairArrays(*sides)
