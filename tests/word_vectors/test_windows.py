"""Blocks of running text against a loop over the words, and the distributions of what is drawn."""

from collections import Counter
from typing import Literal

import numpy as np
import pytest

from pipeline.data.draws import draw_below, draw_uniform
from pipeline.data.examples.word_numbers import Passages, encode_passages
from pipeline.data.examples.word_pairs import WindowExamples, keep_probabilities, negative_probabilities
from pipeline.text.words import build_vocabulary

LENGTHS = (1, 9, 30, 2, 17, 5, 40)
RANDOM = np.random.default_rng(0)
WORDS = RANDOM.integers(0, 12, sum(LENGTHS)).astype(np.int32)
PASSAGES = Passages(words=WORDS, passage=np.repeat(np.arange(len(LENGTHS)), LENGTHS).astype(np.int32))
KEEP = np.linspace(0.4, 1.0, 12)


def _examples(
    *, block_size: int = 8, window: int = 3, counted: Literal["pairs", "centres"] = "pairs", num_shared: int = 6
) -> WindowExamples:
    return WindowExamples(
        PASSAGES,
        KEEP,
        negative_probabilities(np.arange(1, 13), power=0.75),
        window=window,
        block_size=block_size,
        num_shared=num_shared,
        counted=counted,
        seed=5,
    )


def _slow_pairs(epoch: int, window: int) -> list[tuple[int, int]]:
    """All (centre, context) words of an epoch, by the definition, from the same draws."""
    is_kept = draw_uniform(5, epoch, 1, np.arange(len(WORDS))) < KEEP[WORDS]
    kept = [(int(PASSAGES.passage[t]), int(WORDS[t]), t) for t in range(len(WORDS)) if is_kept[t]]
    pairs = []
    for i, (passage, word, place) in enumerate(kept):
        radius = 1 + int(draw_below(window, 5, epoch, 2, np.array([place]))[0])
        for j, (other_passage, other, _) in enumerate(kept):
            if i != j and abs(i - j) <= radius and passage == other_passage:
                pairs.append((word, other))
    return pairs


def _pairs(examples: WindowExamples, epoch: int) -> list[tuple[int, int]]:
    batch = examples.collate(np.arange(len(examples.sizes(epoch).lengths)), epoch)
    return [(int(batch.centres[n, s]), int(batch.contexts[n, c])) for n, s, c in batch.is_pair.nonzero().tolist()]


@pytest.mark.parametrize(("block_size", "window"), [(8, 3), (1, 1), (7, 5), (500, 4)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_the_pairs_are_those_of_a_loop_over_words_whatever_the_blocks(block_size: int, window: int, epoch: int) -> None:
    found = _pairs(_examples(block_size=block_size, window=window), epoch)
    assert found and Counter(found) == Counter(_slow_pairs(epoch, window))


def test_another_epoch_keeps_other_words_and_the_same_epoch_the_same() -> None:
    examples = _examples()
    first, second = _pairs(examples, 0), _pairs(examples, 1)
    _pairs(examples, 2)  # forgets epoch 0
    assert first == _pairs(examples, 0) != second


@pytest.mark.parametrize("counted", ["pairs", "centres"])
def test_sizes_are_what_the_collated_blocks_hold(counted: Literal["pairs", "centres"]) -> None:
    examples = _examples(counted=counted)
    sizes = examples.sizes(4)
    for index in range(len(sizes.lengths)):
        batch = examples.collate(np.array([index]), 4)
        pairs = batch.is_pair if counted == "pairs" else batch.is_pair.any(-1)
        assert int(pairs.sum()) == sizes.num_targets["loss"][index]
    assert sizes.lengths[:-1].tolist() == [8] * (len(sizes.lengths) - 1)
    is_kept = draw_uniform(5, 4, 1, np.arange(len(WORDS))) < KEEP[WORDS]
    assert sizes.lengths.sum() == is_kept.sum()


def test_a_block_is_the_same_alone_and_among_others() -> None:
    examples = _examples()
    together = examples.collate(np.array([4, 1, 2]), 0)
    alone = examples.collate(np.array([1]), 0)
    for name in ("centres", "contexts", "is_pair", "negatives"):
        assert getattr(together, name)[1].equal(getattr(alone, name)[0])


def test_negatives_follow_the_frequencies_to_the_power_of_three_quarters() -> None:
    counts = np.array([81, 16, 1, 0])
    probabilities = negative_probabilities(counts, power=0.75)
    np.testing.assert_allclose(probabilities, [27 / 36, 8 / 36, 1 / 36, 0])
    text = Passages(words=np.zeros(40, dtype=np.int32), passage=np.zeros(40, dtype=np.int32))
    examples = WindowExamples(
        text, np.ones(4), probabilities, window=2, block_size=4, num_shared=2000, counted="pairs", seed=1
    )
    drawn = np.bincount(examples.collate(np.arange(10), 0).negatives.flatten().numpy(), minlength=4)
    np.testing.assert_allclose(drawn / drawn.sum(), probabilities, atol=4 * np.sqrt(0.25 / drawn.sum()))
    assert drawn[3] == 0


def test_a_frequent_word_is_kept_with_the_root_of_threshold_over_frequency() -> None:
    counts = np.array([900, 90, 9, 1])
    np.testing.assert_allclose(
        keep_probabilities(counts, threshold=0.01), [np.sqrt(0.01 / 0.9), np.sqrt(0.01 / 0.09), 1.0, 1.0]
    )
    assert keep_probabilities(counts, threshold=0.0).tolist() == [1.0] * 4


def test_kept_words_are_as_frequent_as_their_probability_says() -> None:
    text = Passages(words=np.zeros(20_000, dtype=np.int32), passage=np.zeros(20_000, dtype=np.int32))
    examples = WindowExamples(
        text, np.array([0.3]), np.ones(1), window=2, block_size=100, num_shared=1, counted="pairs", seed=1
    )
    assert examples.sizes(0).lengths.sum() == pytest.approx(6000, abs=4 * np.sqrt(20_000 * 0.21))


def test_unknown_words_are_left_out_and_passages_stay_apart() -> None:
    text = [["a", "b", "x"], ["y"], ["b"]]
    vocabulary = build_vocabulary([["a", "b"]], min_count=1)
    encoded = encode_passages(text, vocabulary)
    assert (encoded.words.tolist(), encoded.passage.tolist()) == ([0, 1, 1], [0, 0, 2])
