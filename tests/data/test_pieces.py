"""Pieces of documents: laid out as by hand, each pair of neighbours in one piece, and no pair across a border."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.examples.pieces import DocumentPieces
from pipeline.data.token_arrays import in_memory

PAD = 99


def pieces(*lengths: int, length: int) -> DocumentPieces:
    """Document d holds the tokens 1000 d, 1000 d + 1, ...: a token tells its document and its place."""
    documents = [[[1000 * d + i for i in range(count)]] for d, count in enumerate(lengths)]
    return DocumentPieces(in_memory(documents), length=length, pad_id=PAD)


def test_pieces_are_laid_out_as_by_hand() -> None:
    examples = pieces(7, 1, 3, 4, length=4)
    batch = examples.collate(np.arange(4), 0)
    assert batch.input_ids.tolist() == [
        [0, 1, 2, 3],
        [3, 4, 5, 6],
        [2000, 2001, 2002, PAD],
        [3000, 3001, 3002, 3003],
    ]
    assert batch.attention_mask.sum(1).tolist() == [4, 4, 3, 4]
    assert examples.sizes(0).lengths.tolist() == [4, 4, 3, 4]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8).filter(lambda sizes: max(sizes) > 1), st.integers(2, 9))
def test_every_pair_of_neighbours_of_a_document_is_in_one_piece(lengths: list[int], length: int) -> None:
    examples = pieces(*lengths, length=length)
    sizes = examples.sizes(0)
    found: Counter[tuple[int, int]] = Counter()
    for i in np.random.default_rng(0).permutation(len(sizes.lengths)):
        batch = examples.collate(np.array([i]), 0)
        row = batch.input_ids[0][batch.attention_mask[0]].tolist()
        assert 2 <= len(row) == sizes.lengths[i] <= length
        assert sizes.num_targets["ahead"][i] == sizes.num_targets["back"][i] == len(row) - 1
        found.update(pairwise(row))
    assert found == Counter({(1000 * d + i, 1000 * d + i + 1): 1 for d, n in enumerate(lengths) for i in range(n - 1)})


def test_documents_without_neighbours_and_pieces_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="none of 2 documents has two tokens"):
        pieces(1, 0, length=4)
    with pytest.raises(ValueError, match="at least 2 tokens, found 1"):
        pieces(4, length=1)
