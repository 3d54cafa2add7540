"""Token ids of documents on disk: an Arrow file of the `datasets` library, memory-mapped when read.

One row is one document: `id`, `input_ids` and `sentence_lengths`, the tokens of each sentence, which add up to the
document. D1 number of documents + 1, E1 number of sentences + 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable
from jaxtyping import Int

from pipeline.artifacts import read_json

_STATE = "state.json"
"""Where the library keeps the fingerprint, for which the hash of the tokenizer serves."""
_DOCUMENTS_AT_ONCE = 1000
_SCHEMA = pa.schema({"id": pa.string(), "input_ids": pa.list_(pa.int32()), "sentence_lengths": pa.list_(pa.int32())})


@dataclass(frozen=True)
class TokenArrays:
    """The tokens of all documents as one long array that stays on disk, with its borders."""

    parts: tuple[Int[np.ndarray, "_"], ...]
    """The long array in consecutive parts, each a view of the file."""
    document_starts: Int[np.ndarray, "D1"]
    """Position of each document's first token, and behind the last one."""
    sentence_starts: Int[np.ndarray, "E1"]
    """Position of each sentence's first token, and behind the last one."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self.document_starts[-1])

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.document_starts) - 1

    @cached_property
    def _part_starts(self) -> Int[np.ndarray, "parts1"]:
        return np.array([0, *(len(part) for part in self.parts)], dtype=np.int64).cumsum()

    def gather(self, positions: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """The tokens at some positions of the long array."""
        if len(self.parts) == 1:
            return np.asarray(self.parts[0][positions], dtype=np.int64)
        part_of = np.searchsorted(self._part_starts, positions, side="right") - 1
        found = np.empty(positions.shape, dtype=np.int64)
        for part in np.unique(part_of):
            here = part_of == part
            found[here] = self.parts[part][positions[here] - self._part_starts[part]]
        return found


def write_token_arrays(
    folder: Path, ids: Iterable[str], documents: Iterable[Sequence[Sequence[int]]], *, tokenizer_hash: str
) -> int:
    """Writes documents, each a sequence of sentences of token ids, as they come; returns their number of tokens.

    The same input gives the same bytes. Some documents at a time are held; a file beside the folder holds the rest
    until the library has written its own.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f"{folder.name}.partial")
    num_tokens, pairs = 0, zip(ids, documents, strict=True)
    try:
        with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
            while chunk := list(islice(pairs, _DOCUMENTS_AT_ONCE)):
                flat = [[token for sentence in document for token in sentence] for _, document in chunk]
                lengths = [[len(sentence) for sentence in document] for _, document in chunk]
                columns = {"id": [name for name, _ in chunk], "input_ids": flat, "sentence_lengths": lengths}
                writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=_SCHEMA))
                num_tokens += sum(map(len, flat))
        datasets.disable_progress_bars()
        Dataset(MemoryMappedTable.from_file(str(draft)), fingerprint=tokenizer_hash).save_to_disk(folder, num_shards=1)
    finally:
        draft.unlink(missing_ok=True)
    return num_tokens


def read_token_arrays(folder: Path, *, tokenizer_hash: str) -> TokenArrays:
    """Opens a folder of token arrays without reading the tokens.

    Raises ValueError when it is missing, has no tokens, or was made with another tokenizer.
    """
    if not (folder / _STATE).is_file():
        raise ValueError(f"{folder}: no token arrays; run the stage tokenize")
    found = read_json(folder / _STATE)["_fingerprint"]
    if found != tokenizer_hash:
        raise ValueError(
            f"{folder}: the token arrays were made with the tokenizer {found[:12]}, expected {tokenizer_hash[:12]}; "
            "run the stage tokenize again"
        )
    table = Dataset.load_from_disk(str(folder)).data
    lengths = [chunk.value_lengths().to_numpy() for chunk in table.column("input_ids").chunks]
    starts = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
    if starts[-1] == 0:
        raise ValueError(f"{folder}: the documents have no tokens")
    sentences = [_values(chunk) for chunk in table.column("sentence_lengths").chunks]
    return TokenArrays(
        parts=tuple(_values(chunk) for chunk in table.column("input_ids").chunks),
        document_starts=starts,
        sentence_starts=np.concatenate([[0], np.cumsum(np.concatenate(sentences), dtype=np.int64)]),
    )


def in_memory(documents: Sequence[Sequence[Sequence[int]]]) -> TokenArrays:
    """Token arrays of documents (of sentences of token ids) that are not on disk."""
    sentences = [sentence for document in documents for sentence in document]
    lengths = [sum(len(sentence) for sentence in document) for document in documents]
    return TokenArrays(
        parts=(np.array([token for sentence in sentences for token in sentence], dtype=np.int64),),
        document_starts=np.cumsum([0, *lengths]),
        sentence_starts=np.cumsum([0, *(len(sentence) for sentence in sentences)]),
    )


def _values(chunk: pa.ListArray) -> np.ndarray:
    """All values of the lists of a chunk, as a view."""
    flat = chunk.flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=True))
