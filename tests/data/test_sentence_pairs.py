"""Where A and B lie tells neither whether B is random nor leaves a part of a document unread."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.data.examples.sentence_pairs import Segments, SentencePairs
from pipeline.data.token_arrays import TokenArrays


def borders(lengths: Sequence[Sequence[int]]) -> TokenArrays:
    """Documents of sentences of these lengths, without their tokens."""
    flat = [length for document in lengths for length in document]
    return TokenArrays(
        parts=(),
        document_starts=np.cumsum([0, *map(sum, lengths)]),
        first_sentences=np.cumsum([0, *map(len, lengths)]),
        sentence_starts=np.cumsum([0, *flat]),
    )


def documents(count: int, num_sentences: tuple[int, int], num_tokens: tuple[int, int], seed: int) -> list[list[int]]:
    """Lengths of sentences; both ranges are inclusive."""
    random = np.random.default_rng(seed)
    sizes = random.integers(num_sentences[0], num_sentences[1] + 1, count)
    return [random.integers(num_tokens[0], num_tokens[1] + 1, size).tolist() for size in sizes]


SHORT = documents(4000, (4, 12), (5, 30), 0)
TWO = documents(4000, (2, 2), (5, 30), 1)
LONG = documents(150, (100, 400), (5, 30), 2)
"""Of these every document fills several rows."""
BY_KIND = {
    "short documents": (SHORT, 509),
    "documents of two sentences": (TWO, 509),
    "long documents": (LONG, 125),
    "short and long documents": (SHORT + LONG, 125),
}
OF_TWO_STYLES = documents(2000, (4, 12), (3, 8), 3) + documents(2000, (4, 12), (20, 40), 4)


def drawn(lengths: list[list[int]], room: int, *, short_share: float = 0.1) -> tuple[TokenArrays, Segments]:
    """The pairs of one epoch; every document has two sentences or more, so that all rows are pairs."""
    tokens = borders(lengths)
    pairs = SentencePairs(tokens, room=room, short_share=short_share, seed=1)
    found = pairs.draw(np.arange(len(pairs)), 0)
    assert (found.b_length > 0).all() and len(pairs) > 3000
    return tokens, found


def advantage(seen: np.ndarray, labels: np.ndarray) -> float:
    """By how much a histogram of what is seen, of one half of the rows, guesses the other half above the majority."""
    counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    keys = [tuple(row) for row in seen.tolist()]
    for key, label in zip(keys[::2], labels[::2].tolist(), strict=True):
        counts[key][label] += 1
    common = int(labels[::2].mean() > 0.5)
    guesses = [counts[key].most_common(1)[0][0] if key in counts else common for key in keys[1::2]]
    majority = max(labels[1::2].mean(), 1 - labels[1::2].mean())
    return float((np.array(guesses) == labels[1::2]).mean() - majority)


@pytest.mark.parametrize("kind", [*BY_KIND, "documents of two styles"])
def test_the_lengths_of_a_pair_do_not_tell_whether_it_is_random(kind: str) -> None:
    lengths, room = BY_KIND.get(kind, (OF_TWO_STYLES, 509))
    _, found = drawn(lengths, room)
    seen = np.stack([found.a_length // 8, found.b_length // 8], axis=1)
    assert advantage(seen, found.is_random) < 0.03
    assert abs(found.is_random.mean() - 0.5) < 0.03


@pytest.mark.parametrize("kind", BY_KIND)
def test_where_the_second_segment_begins_and_ends_does_not_tell_it_either(kind: str) -> None:
    tokens, found = drawn(*BY_KIND[kind])
    end = found.b_begin + found.b_length
    seen = [
        np.isin(found.b_begin, tokens.sentence_starts),
        np.isin(end, tokens.sentence_starts),
        np.isin(found.b_begin, tokens.document_starts),
        np.isin(end, tokens.document_starts),
    ]
    assert advantage(np.stack([found.b_length // 8, *seen], axis=1), found.is_random) < 0.04
    follows, is_random = ([part[found.is_random == label].mean() for part in seen] for label in (0, 1))
    np.testing.assert_allclose(follows, is_random, atol=0.05)
    assert not seen[2].any()


def test_short_documents_keep_most_of_their_second_segments() -> None:
    """The rest of a document of 4 to 12 sentences of 17.5 tokens, cut anywhere, has some 45 tokens."""
    _, found = drawn(SHORT, 509, short_share=0.0)
    means = [found.b_length[found.is_random == label].mean() for label in (0, 1)]
    assert min(means) > 25 and abs(means[0] - means[1]) < 2


def test_rows_of_long_documents_stay_full_beside_many_short_ones() -> None:
    tokens, found = drawn(SHORT + LONG, 125, short_share=0.0)
    rest = tokens.document_starts[np.searchsorted(tokens.document_starts, found.a_begin, side="right")] - found.a_begin
    inside = rest > 2 * 125
    assert inside.sum() > 1000
    assert (found.a_length + found.b_length == 125)[inside].mean() > 0.98


def test_within_an_epoch_short_documents_are_read_from_different_places() -> None:
    _, found = drawn([[10] * 10] * 4000, 509)
    first = found.a_begin % 100 // 10
    shares = np.bincount(first, minlength=10) / len(first)
    # The row of a document does not begin at its last sentence, but at the one before.
    np.testing.assert_allclose(shares, [0.1] * 8 + [0.2, 0.0], atol=0.03)


def test_over_some_epochs_all_of_every_short_document_is_read() -> None:
    tokens = borders([[10] * 10] * 200)
    pairs = SentencePairs(tokens, room=509, short_share=0.0, seed=1)
    is_read = np.zeros(tokens.num_tokens, dtype=bool)
    # Of 21 multiples of the golden section no two neighbours are a tenth apart.
    for epoch in range(21):
        found = pairs.draw(np.arange(len(pairs)), epoch)
        for begin, length in zip(found.a_begin.tolist(), found.a_length.tolist(), strict=True):
            is_read[begin : begin + length] = True
    assert is_read.reshape(200, 100)[:, :90].all()
