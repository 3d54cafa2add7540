"""Documents -> MaskedBatch: masked language modelling and next-sentence prediction (Devlin et al. 2019, section 3.1).

A row is [CLS] A [SEP] B [SEP], or [CLS] A [SEP] where the document has one sentence only: masked words, but no pair.
Every draw is a function of (seed, epoch, index), for a whole batch at once. B batch, T the longest row,
P pairs of an epoch, V ordinary ids, W all ids.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int

from pipeline.data.batches import MaskedBatch, Sizes
from pipeline.data.draws import draw_below, draw_bits, draw_uniform
from pipeline.data.examples.sentence_pairs import Segments, SentencePairs
from pipeline.data.token_arrays import TokenArrays
from pipeline.text.tokenizer import Tokenizer

_SPECIALS = 3
"""[CLS] A [SEP] B [SEP]."""
_ROWS_AT_ONCE = 100_000
_CHOOSE, _REPLACE, _TOKEN = range(100, 103)
"""Purposes of the draws, apart from those of the sentence pairs."""


@dataclass(frozen=True)
class Vocabulary:
    """What masking needs to know of the tokenizer."""

    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    ordinary_ids: Int[np.ndarray, "V"]
    """Ids that may replace a token at random: all but the special ones."""
    continues_word: Bool[np.ndarray, "W"] | None
    """For every id, whether it continues the word of the token before it; None where pieces do not tell."""


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """What masking needs to know of a tokenizer with the special tokens of BERT; only WordPiece tells words apart."""
    tokens = tokenizer.tokens(range(tokenizer.vocab_size))
    prefix = tokenizer.continuing_prefix
    return Vocabulary(
        pad_id=tokenizer.pad_id,
        cls_id=tokenizer.id_of("cls"),
        sep_id=tokenizer.id_of("sep"),
        mask_id=tokenizer.id_of("mask"),
        ordinary_ids=np.setdiff1d(np.arange(tokenizer.vocab_size), sorted(tokenizer.special_ids)),
        continues_word=np.array([token.startswith(prefix) for token in tokens]) if prefix else None,
    )


@dataclass(frozen=True)
class MaskedExamples:
    """Pairs of segments, drawn anew in every epoch; their number does not change."""

    tokens: TokenArrays
    vocabulary: Vocabulary
    max_length: int
    """Longest row, the three special tokens included."""
    mask_share: float
    """Share of the ordinary tokens that are predicted: max(1, round(share * n)) of n, exactly."""
    short_share: float
    """Share of the rows that aim at a random shorter length (short_seq_prob)."""
    whole_words: bool
    """Chooses the pieces of a word together; the last word may be cut, so that the number stays exact."""
    seed: int

    def __post_init__(self) -> None:
        if self.whole_words and self.vocabulary.continues_word is None:
            raise ValueError(
                "masking.whole_words: found true; pieces of a tokenizer that is no WordPiece do not tell which of them "
                "continue a word; allowed is false"
            )

    @cached_property
    def _pairs(self) -> SentencePairs:
        return SentencePairs(
            self.tokens, room=self.max_length - _SPECIALS, short_share=self.short_share, seed=self.seed
        )

    def sizes(self, epoch: int) -> Sizes:
        """Row lengths; masked positions under "mlm", one target for each pair under "nsp"."""
        count = len(self._pairs)
        ordinary, masked = np.empty(count, dtype=np.int32), np.empty(count, dtype=np.int32)
        is_pair = np.empty(count, dtype=np.int8)
        for here, segments in self._blocks(epoch):
            ordinary[here] = segments.a_length + segments.b_length
            masked[here] = self._num_masked(ordinary[here])
            is_pair[here] = segments.b_length > 0
        return Sizes(lengths=ordinary + (_SPECIALS - 1) + is_pair, num_targets={"mlm": masked, "nsp": is_pair})

    def next_sentence_labels(self, epoch: int) -> Int[np.ndarray, "P"]:
        """Of every pair, whether its second segment comes from another document (1) or follows the first (0)."""
        return np.concatenate([segments.is_random[segments.b_length > 0] for _, segments in self._blocks(epoch)])

    def _blocks(self, epoch: int) -> Iterator[tuple[slice, Segments]]:
        """All rows, some at a time: what their draws need on the way is many times what is kept of them."""
        for begin in range(0, len(self._pairs), _ROWS_AT_ONCE):
            end = min(begin + _ROWS_AT_ONCE, len(self._pairs))
            yield slice(begin, end), self._pairs.draw(np.arange(begin, end), epoch)

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> MaskedBatch:
        """The right-padded, masked batch of some examples in `epoch`."""
        segments = self._pairs.draw(indices, epoch)
        a, b = segments.a_length[:, None], segments.b_length[:, None]
        length = a + b + _SPECIALS - (b == 0)
        column = np.arange(int(length.max()))[None]
        in_a = (column >= 1) & (column <= a)
        in_b = (column >= a + 2) & (column <= a + b + 1)
        exists = column < length
        ordinary = in_a | in_b
        position = np.where(in_a, segments.a_begin[:, None] + column - 1, segments.b_begin[:, None] + column - a - 2)
        words = self.tokens.gather(np.where(ordinary, position, 0))
        special = np.where(column == 0, self.vocabulary.cls_id, self.vocabulary.sep_id)
        labels = np.where(ordinary, words, np.where(exists, special, self.vocabulary.pad_id))
        is_masked = self._choose(labels, ordinary, indices, epoch)
        return MaskedBatch(
            input_ids=torch.from_numpy(self._replace(labels, is_masked, indices, epoch)),
            token_type_ids=torch.from_numpy((exists & (column >= a + 2)).astype(np.int64)),
            attention_mask=torch.from_numpy(exists),
            labels=torch.from_numpy(labels),
            is_masked=torch.from_numpy(is_masked),
            next_sentence_labels=torch.from_numpy(segments.is_random),
            is_pair=torch.from_numpy(segments.b_length > 0),
        )

    def _num_masked(self, ordinary: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        return np.maximum(1, np.rint(self.mask_share * ordinary)).astype(np.int64)

    def _choose(
        self,
        labels: Int[np.ndarray, "B T"],
        ordinary: Bool[np.ndarray, "B T"],
        indices: Int[np.ndarray, "B"],
        epoch: int,
    ) -> Bool[np.ndarray, "B T"]:
        """Exactly `_num_masked` ordinary positions of each row: those with the smallest random keys."""
        column = np.arange(labels.shape[1])
        unit = np.broadcast_to(column, labels.shape)
        if self.whole_words:
            assert self.vocabulary.continues_word is not None, "refused when the examples were made"
            continues = self.vocabulary.continues_word[labels] & ordinary
            unit = np.maximum.accumulate(np.where(continues, 0, column), axis=1)
        keys = draw_bits(self.seed, epoch, _CHOOSE, indices[:, None], unit)
        # The low bits number the positions: no two keys are equal, and the pieces of a word stay in order.
        low = np.uint64(0xFFFF)
        keys = np.where(ordinary, (keys >> np.uint64(1)) & ~low | column.astype(np.uint64), ~np.uint64(0))
        smallest = np.sort(keys, axis=1)
        last = self._num_masked(ordinary.sum(1)) - 1
        return np.asarray(keys <= np.take_along_axis(smallest, last[:, None], axis=1))

    def _replace(
        self,
        labels: Int[np.ndarray, "B T"],
        is_masked: Bool[np.ndarray, "B T"],
        indices: Int[np.ndarray, "B"],
        epoch: int,
    ) -> Int[np.ndarray, "B T"]:
        """80% of the chosen tokens become [MASK], 10% a random ordinary token, 10% stay."""
        column = np.arange(labels.shape[1])
        dice = draw_uniform(self.seed, epoch, _REPLACE, indices[:, None], column)
        choices = self.vocabulary.ordinary_ids
        random = choices[draw_below(len(choices), self.seed, epoch, _TOKEN, indices[:, None], column)]
        replaced = np.where(dice < 0.8, self.vocabulary.mask_id, np.where(dice < 0.9, random, labels))
        return np.where(is_masked, replaced, labels)
