"""Sentence pairs -> TranslationBatch. S source length with EOS, T target length with BOS or with EOS.

The source ends with EOS, as Marian's does; the decoder starts with BOS, which is the padding id there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from pipeline.data.batches import Sizes, TranslationBatch
from pipeline.data.padding import pad_ids, pad_mask
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
class TranslationExamples:
    """Pairs of token ids, one an example; the same in every epoch."""

    src: tuple[Int[np.ndarray, "_"], ...]
    """Source ids, EOS included."""
    tgt: tuple[Int[np.ndarray, "_"], ...]
    """Target ids, EOS included."""
    pad_id: int
    bos_id: int

    def sizes(self, epoch: int) -> Sizes:
        """The longer side of each pair, and its target tokens with EOS."""
        targets = np.array([len(ids) for ids in self.tgt], dtype=np.int64)
        sources = np.array([len(ids) for ids in self.src], dtype=np.int64)
        return Sizes(lengths=np.maximum(sources, targets), num_targets={"loss": targets})

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> TranslationBatch:
        """The right-padded batch of some pairs."""
        src, labels = [self.src[i] for i in indices], [self.tgt[i] for i in indices]
        tgt = [np.concatenate([[self.bos_id], ids[:-1]]) for ids in labels]
        return TranslationBatch(
            src=pad_ids(src, self.pad_id),
            src_mask=pad_mask([np.ones(len(ids), dtype=bool) for ids in src]),
            tgt=pad_ids(tgt, self.pad_id),
            labels=pad_ids(labels, self.pad_id),
            is_target=pad_mask([np.ones(len(ids), dtype=bool) for ids in labels]),
        )


def translation_examples(
    pairs: Sequence[Pair], tokenizer: Tokenizer, *, max_length: int, too_long: Literal["drop", "cut"]
) -> tuple[TranslationExamples, TranslationReport]:
    """Encodes pairs; a side has at most `max_length` tokens with its EOS, else the pair is dropped or the side cut.

    Cutting is for evaluation, where no pair may be missing. A cut side keeps its EOS.
    """
    sides = [tokenizer.encode_batch(texts) for texts in ([pair.src for pair in pairs], [pair.tgt for pair in pairs])]
    fits = [np.array([len(ids) < max_length for ids in side], dtype=bool) for side in sides]
    kept = [i for i in range(len(pairs)) if too_long == "cut" or (fits[0][i] and fits[1][i])]
    src, tgt = (
        tuple(np.array([*side[i][: max_length - 1], tokenizer.eos_id], dtype=np.int64) for i in kept) for side in sides
    )
    report = TranslationReport(
        num_pairs=len(kept), num_src_too_long=int((~fits[0]).sum()), num_tgt_too_long=int((~fits[1]).sum())
    )
    return TranslationExamples(src=src, tgt=tgt, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id), report
