"""Sentence pairs -> TranslationBatch. S source length with EOS, T target length with BOS or with EOS.

The source ends with EOS, as Marian's does; the decoder starts with BOS, which is the padding id there. Legend: N
examples, R rows of the arrays that they are chosen from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int

from pipeline.data.batches import Sizes, TranslationBatch
from pipeline.data.examples.padding import pad_ids, pad_mask
from pipeline.data.pair_arrays import PairArrays, SentenceArray
from pipeline.data.records import Pair
from pipeline.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TranslationReport:
    """What became of the pairs."""

    num_pairs: int
    """Pairs that were kept."""
    num_src_too_long: int
    """Sources longer than the length: dropped or cut."""
    num_tgt_too_long: int
    """Targets longer than the length: dropped or cut."""


@dataclass(frozen=True)
class TokenRows:
    """One side of the examples: sentences of an array, cut to a length, each with EOS behind it."""

    array: SentenceArray
    rows: Int[np.ndarray, "N"]
    """Row of each example."""
    max_length: int
    """Most tokens of a sentence with its EOS."""
    eos_id: int

    @staticmethod
    def of(sentences: Sequence[Sequence[int]], *, max_length: int, eos_id: int) -> "TokenRows":
        """All of some sentences, in memory; their ids are given without EOS."""
        return TokenRows(SentenceArray.of(sentences), np.arange(len(sentences)), max_length, eos_id)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> Int[np.ndarray, "N"]:
        """Tokens of each sentence with its EOS."""
        lengths: np.ndarray = np.minimum(self.array.lengths()[self.rows] + 1, self.max_length, dtype=np.int32)
        return lengths

    def take(self, indices: Int[np.ndarray, "B"]) -> list[Int[np.ndarray, "_"]]:
        """The ids of some examples, EOS included."""
        starts, lengths = self.array.starts[self.rows[indices]], self.lengths[indices]
        taken = []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            ids = np.full(length, self.eos_id, dtype=np.int64)
            ids[:-1] = self.array.tokens[start : start + length - 1]
            taken.append(ids)
        return taken


@dataclass(frozen=True)
class TranslationExamples:
    """Pairs of token ids, one an example; the same in every epoch."""

    src: TokenRows
    """Source ids, EOS included."""
    tgt: TokenRows
    """Target ids, EOS included."""
    pad_id: int
    bos_id: int

    def sizes(self, epoch: int) -> Sizes:
        """The longer side of each pair, and its target tokens with EOS."""
        sources, targets = self.src.lengths, self.tgt.lengths
        return Sizes(np.maximum(sources, targets), num_targets={"loss": targets}, skew=sources - targets)

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> TranslationBatch:
        """The right-padded batch of some pairs."""
        src, labels = self.src.take(indices), self.tgt.take(indices)
        tgt = [np.concatenate([[self.bos_id], ids[:-1]]) for ids in labels]
        return TranslationBatch(
            src=pad_ids(src, self.pad_id),
            src_mask=pad_mask([np.ones(len(ids), dtype=bool) for ids in src]),
            tgt=pad_ids(tgt, self.pad_id),
            labels=pad_ids(labels, self.pad_id),
            is_target=pad_mask([np.ones(len(ids), dtype=bool) for ids in labels]),
        )


def choose_examples(
    pairs: PairArrays, tokenizer: Tokenizer, *, max_length: int, too_long: Literal["drop", "cut"]
) -> tuple[TranslationExamples, TranslationReport]:
    """Encoded pairs as examples, read when they are asked for.

    A side has at most `max_length` tokens with its EOS, else the pair is dropped or the side cut. Cutting is for
    evaluation, where no pair may be missing. A cut side keeps its EOS.
    """
    fits = [side.lengths() < max_length for side in (pairs.src, pairs.tgt)]
    kept = np.flatnonzero((fits[0] & fits[1]) | (too_long == "cut")).astype(np.int32)
    src, tgt = (TokenRows(side, kept, max_length, tokenizer.eos_id) for side in (pairs.src, pairs.tgt))
    report = TranslationReport(
        num_pairs=len(kept), num_src_too_long=int((~fits[0]).sum()), num_tgt_too_long=int((~fits[1]).sum())
    )
    return TranslationExamples(src=src, tgt=tgt, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id), report


def translation_examples(
    pairs: Sequence[Pair], tokenizer: Tokenizer, *, max_length: int, too_long: Literal["drop", "cut"]
) -> tuple[TranslationExamples, TranslationReport]:
    """`choose_examples` of pairs that are encoded here and stay in memory."""
    sides = [tokenizer.encode_batch(texts) for texts in ([pair.src for pair in pairs], [pair.tgt for pair in pairs])]
    arrays = PairArrays.of((sides[0], sides[1]))
    return choose_examples(arrays, tokenizer, max_length=max_length, too_long=too_long)
