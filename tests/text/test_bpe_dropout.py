"""BPE-dropout: random segmentations of the same text."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers

from pipeline.text.bpe_dropout import BpeDropout
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_translation_bpe, train_wordpiece

TEXTS = ["two young men are walking down the street .", "zwei junge männer gehen die straße entlang ."] * 8


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_translation_bpe(TEXTS, vocab_size=80)


def test_without_dropout_it_is_the_tokenizer(bpe: Tokenizer) -> None:
    unseen = ["young walking  men\tare down", "straßen", "", "über 7 men"]
    found = BpeDropout(bpe, dropout=0.0, seed=1).encode_batch([*TEXTS, *unseen])
    assert found == bpe.encode_batch([*TEXTS, *unseen])


def test_every_segmentation_spells_the_text(bpe: Tokenizer) -> None:
    found = BpeDropout(bpe, dropout=0.3, seed=1).encode_batch(TEXTS)
    assert [bpe.decode(ids) for ids in found] == TEXTS
    assert len({tuple(ids) for ids in found}) > 2


def test_with_all_merges_left_out_only_characters_remain(bpe: Tokenizer) -> None:
    (ids,) = BpeDropout(bpe, dropout=1.0, seed=1).encode_batch(["two men"])
    assert bpe.tokens(ids) == list("▁two▁men")


def test_the_seed_alone_decides(bpe: Tokenizer) -> None:
    first, again, other = (BpeDropout(bpe, dropout=0.3, seed=seed).encode_batch(TEXTS) for seed in (1, 1, 2))
    assert first == again != other


def test_each_segmentation_comes_as_often_as_the_algorithm_says() -> None:
    """The word abc with the merges ab, then abc; bc is no merge.

    First step: ab with 1 - p. Second: abc with 1 - p. So p: a b c; (1 - p) p: ab c; (1 - p)^2: abc. That ab is drawn
    once decides it, for a step without a merge is the last.
    """
    model = tokenizers.models.BPE(
        vocab={"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, merges=[("a", "b"), ("ab", "c")], unk_token=None
    )
    p = 0.4
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(200):
        backend = Tokenizer(tokenizers.Tokenizer(model), special={})
        counts.update(tuple(ids) for ids in BpeDropout(backend, dropout=p, seed=seed).encode_batch(["abc"] * 50))
    shares = {ids: count / 10_000 for ids, count in counts.items()}
    # 200 x about 35 independent draws: the standard error is below 0.01.
    assert shares == pytest.approx({(0, 1, 2): p, (3, 2): (1 - p) * p, (4,): (1 - p) ** 2}, abs=0.03)


def test_what_is_not_bpe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="type BPE, found WordPiece"):
        BpeDropout(train_wordpiece(TEXTS, vocab_size=80), dropout=0.1, seed=0)


def test_a_tokenizer_that_does_more_than_merging_is_refused(bpe: Tokenizer) -> None:
    model = tokenizers.models.BPE(vocab={"a</w>": 0}, merges=[], end_of_word_suffix="</w>")
    with pytest.raises(ValueError, match="end_of_word_suffix: '', found '</w>'"):
        BpeDropout(replace(bpe, backend=tokenizers.Tokenizer(model), special={}), dropout=0.1, seed=0)
