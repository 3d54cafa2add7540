"""Running text -> blocks of centre words, each with the context words around it and negative samples.

A block is S consecutive kept words, the centres, with W more on either side; which words are kept, how wide each window
is and what the negatives are is a function of (seed, epoch, place). T kept words, N blocks, S centres of a block,
C = S + 2W context words, K negatives that the block shares, V vocabulary.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from pipeline.data.batches import Batch, Sizes
from pipeline.data.draws import draw_below, draw_uniform
from pipeline.data.examples.word_numbers import Passages

_KEEP, _RADIUS, _NEGATIVE = 1, 2, 3
"""Purposes of the draws."""


@dataclass(frozen=True)
class WindowBatch(Batch):
    """Blocks of running text."""

    centres: Int[Tensor, "N S"]
    contexts: Int[Tensor, "N C"]
    """The centres with the words before and behind them; 0 beyond the text."""
    is_pair: Bool[Tensor, "N S C"]
    """True where the context word stands in the window of the centre."""
    negatives: Int[Tensor, "N K"]


def keep_probabilities(counts: Int[np.ndarray, "V"], *, threshold: float) -> Float[np.ndarray, "V"]:
    """Subsampling of frequent words (Mikolov et al. 2013b, eq. 5): a word of relative frequency f is kept with
    probability sqrt(threshold / f), at most 1; a threshold of 0 keeps all words."""
    if threshold == 0:
        return np.ones(len(counts))
    return np.asarray(np.minimum(1.0, np.sqrt(threshold * counts.sum() / np.maximum(counts, 1))))


def negative_probabilities(counts: Int[np.ndarray, "V"], *, power: float) -> Float[np.ndarray, "V"]:
    """The distribution of negative samples: unigram frequencies to a power (Mikolov et al. 2013b, section 2.2)."""
    weights = counts.astype(np.float64) ** power
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True)
class _Kept:
    """What one epoch sees of the text, with W places of padding before it and at least W behind it."""

    words: Int32[np.ndarray, "padded"]
    passage: Int32[np.ndarray, "padded"]
    """-1 at the padding."""
    radius: Int32[np.ndarray, "padded"]
    """Width of each word's window on one side; 0 at the padding."""
    num_words: int


@dataclass(frozen=True)
class WindowExamples:
    """Blocks of centre words; `sizes` counts what the objective counts."""

    passages: Passages
    keep: Float[np.ndarray, "V"]
    """Probability that an occurrence of a word is kept."""
    negatives: Float[np.ndarray, "V"]
    """Distribution of the negative samples."""
    window: int
    """Largest distance of a context word; that of each centre is drawn from 1 to this."""
    block_size: int
    num_shared: int
    """Negative samples of a block."""
    counted: Literal["pairs", "centres"]
    """What is a target: each pair, or each centre that has a context."""
    seed: int
    _epochs: dict[int, _Kept] = field(default_factory=dict, init=False, repr=False, compare=False)

    def sizes(self, epoch: int) -> Sizes:
        """Centres and targets of each block."""
        counts = self._pairs_of_centres(epoch)
        if self.counted == "centres":
            counts = (counts > 0).astype(np.int64)
        starts = np.arange(0, len(counts), self.block_size)
        lengths = np.minimum(self.block_size, len(counts) - starts)
        targets = np.add.reduceat(counts, starts) if len(starts) else counts
        return Sizes(lengths=lengths, num_targets={"loss": targets})

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> WindowBatch:
        """Some blocks of an epoch."""
        kept, size, window = self._kept(epoch), self.block_size, self.window
        at = indices[:, None] * size + np.arange(size + 2 * window)
        contexts, passage = kept.words[at], kept.passage[at]
        radius = kept.radius[at[:, window : window + size]]
        distance = np.abs(np.arange(size)[:, None] + window - np.arange(size + 2 * window))
        same = passage[:, window : window + size, None] == passage[:, None, :]
        is_pair: Bool[np.ndarray, "B S C"] = same & (distance <= radius[:, :, None]) & (distance > 0)
        draws = draw_uniform(
            self.seed, epoch, _NEGATIVE, indices[:, None] * self.num_shared + np.arange(self.num_shared)
        )
        cumulative = np.cumsum(self.negatives)
        negatives = np.searchsorted(cumulative / cumulative[-1], draws, side="right")
        words = torch.from_numpy(contexts.astype(np.int64))
        return WindowBatch(
            centres=words[:, window : window + size],
            contexts=words,
            is_pair=torch.from_numpy(is_pair),
            negatives=torch.from_numpy(negatives),
        )

    def _pairs_of_centres(self, epoch: int) -> Int[np.ndarray, "T"]:
        """Number of context words in the window of each kept word."""
        kept, window = self._kept(epoch), self.window
        inner = slice(window, window + kept.num_words)
        radius, passage = kept.radius[inner], kept.passage[inner]
        counts = np.zeros(kept.num_words, dtype=np.int64)
        for distance in range(1, window + 1):
            is_near = radius >= distance
            for shift in (-distance, distance):
                other = kept.passage[window + shift : window + shift + kept.num_words]
                counts += is_near & (other == passage)
        return counts

    def _kept(self, epoch: int) -> _Kept:
        """The kept words of an epoch; the last two epochs stay in memory, for the plan and the loader."""
        if epoch not in self._epochs:
            found = self._draw(epoch)
            while len(self._epochs) >= 2:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = found
        return self._epochs[epoch]

    def _draw(self, epoch: int) -> _Kept:
        words = self.passages.words
        places = np.arange(len(words))
        is_kept = draw_uniform(self.seed, epoch, _KEEP, places) < self.keep[words]
        radius = 1 + draw_below(self.window, self.seed, epoch, _RADIUS, places[is_kept])
        num_words = int(is_kept.sum())
        behind = self.window + -num_words % self.block_size
        padding = (self.window, behind)
        return _Kept(
            words=np.pad(words[is_kept], padding),
            passage=np.pad(self.passages.passage[is_kept], padding, constant_values=-1),
            radius=np.pad(radius.astype(np.int32), padding),
            num_words=num_words,
        )
