"""Token ids of documents on disk: an Arrow file of the `datasets` library, memory-mapped when read.

One row is one document: `id`, `input_ids` and `sentence_lengths`, the tokens of each sentence, which add up to the
document. Beside it lie the borders, one file each, which every rank maps too: nothing that grows with the corpus is
built when a training opens it. D1 number of documents + 1, S1 number of sentences with a token + 1.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset
from jaxtyping import Int

from pipeline.artifacts import read_json
from pipeline.chunks import chunks

_STATE = "state.json"
"""Where the library keeps the fingerprint, for which the hash of the tokenizer serves."""
_BORDERS = ("document_starts", "first_sentences", "sentence_starts")
_PLACE = np.dtype("<i8")
_DOCUMENTS_AT_ONCE = 1000
_TOKENS_AT_ONCE = 1_000_000
_SCHEMA = pa.schema({"id": pa.string(), "input_ids": pa.list_(pa.int32()), "sentence_lengths": pa.list_(pa.int32())})


@dataclass(frozen=True)
class TokenArrays:
    """The tokens of all documents as one long array that stays on disk, with its borders."""

    parts: tuple[Int[np.ndarray, "_"], ...]
    """The long array in consecutive parts, each a view of the file."""
    document_starts: Int[np.ndarray, "D1"]
    """Position of each document's first token, and behind the last one."""
    first_sentences: Int[np.ndarray, "D1"]
    """Number of each document's first sentence, and the number of sentences."""
    sentence_starts: Int[np.ndarray, "S1"]
    """Position of each sentence's first token, empty ones left out, and behind the last one."""

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

    The same input gives the same bytes. Some documents at a time are held, as many as have a million tokens together.
    """
    datasets.disable_progress_bars()
    # The library writes everything but the rows: it would copy them from a file that is as large.
    Dataset(_SCHEMA.empty_table(), fingerprint=tokenizer_hash).save_to_disk(folder, num_shards=1)
    [rows] = read_json(folder / _STATE)["_data_files"]
    num_tokens = num_sentences = 0
    with ExitStack() as stack:
        file = stack.enter_context(pa.OSFile(str(folder / rows["filename"]), "wb"))
        writer = stack.enter_context(pa.ipc.new_stream(file, _SCHEMA))
        borders = {name: stack.enter_context(_border(folder, name).open("wb")) for name in _BORDERS}
        named = zip(ids, documents, strict=True)
        for chunk in chunks(named, _num_tokens, size_at_once=_TOKENS_AT_ONCE, most_at_once=_DOCUMENTS_AT_ONCE):
            flat = [[token for sentence in document for token in sentence] for _, document in chunk]
            lengths = [[len(sentence) for sentence in document] for _, document in chunk]
            columns = {"id": [name for name, _ in chunk], "input_ids": flat, "sentence_lengths": lengths}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=_SCHEMA))
            starts = _borders(lengths)
            for name, before in zip(_BORDERS, (num_tokens, num_sentences, num_tokens), strict=True):
                borders[name].write((starts[name][:-1] + before).astype(_PLACE).tobytes())
            num_tokens += int(starts["document_starts"][-1])
            num_sentences += int(starts["first_sentences"][-1])
        for name, end in zip(_BORDERS, (num_tokens, num_sentences, num_tokens), strict=True):
            borders[name].write(np.array([end], dtype=_PLACE).tobytes())
    return num_tokens


def _num_tokens(named: tuple[str, Sequence[Sequence[int]]]) -> int:
    return sum(map(len, named[1]))


def _border(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _borders(lengths: Sequence[Sequence[int]]) -> dict[str, Int[np.ndarray, "_"]]:
    """The borders of documents by name, from the lengths of the sentences of each."""
    flat = np.array([length for document in lengths for length in document], dtype=np.int64)
    return {
        "document_starts": np.cumsum([0, *map(sum, lengths)], dtype=np.int64),
        "first_sentences": np.cumsum([0, *(sum(map(bool, document)) for document in lengths)], dtype=np.int64),
        "sentence_starts": np.concatenate([[0], flat[flat > 0].cumsum()]).astype(np.int64),
    }


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
    parts = tuple(_values(chunk) for chunk in table.column("input_ids").chunks)
    borders = {}
    for name in _BORDERS:
        path = _border(folder, name)
        if not path.is_file() or path.stat().st_size == 0:
            raise ValueError(f"{path}: missing or empty; run the stage tokenize again")
        # As plain arrays: a view of the class memmap costs more than reading an element.
        borders[name] = np.asarray(np.memmap(path, _PLACE, "r"))
    num_tokens = sum(map(len, parts))
    sentences = borders["sentence_starts"]
    ends = {"document_starts": num_tokens, "first_sentences": len(sentences) - 1, "sentence_starts": num_tokens}
    has_borders = len(borders["document_starts"]) == len(borders["first_sentences"]) == table.num_rows + 1
    if not has_borders or any(borders[name][-1] != end for name, end in ends.items()):
        raise ValueError(f"{folder}: the borders do not fit the tokens; run the stage tokenize again")
    if num_tokens == 0:
        raise ValueError(f"{folder}: the documents have no tokens")
    return TokenArrays(parts=parts, **borders)


def in_memory(documents: Sequence[Sequence[Sequence[int]]]) -> TokenArrays:
    """Token arrays of documents (of sentences of token ids) that are not on disk."""
    flat = [token for document in documents for sentence in document for token in sentence]
    borders = _borders([[len(sentence) for sentence in document] for document in documents])
    return TokenArrays(parts=(np.array(flat, dtype=np.int64),), **borders)


def _values(chunk: pa.ListArray) -> np.ndarray:
    """All values of the lists of a chunk, as a view."""
    flat = chunk.flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=True))
