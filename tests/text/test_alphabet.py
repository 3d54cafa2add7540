"""Which characters of the training texts get a piece of their own, and which are unknown."""

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_translation_bpe, train_wordpiece

HAN = [chr(0x4E00 + i) for i in range(3000)]


def zipf_texts() -> list[str]:
    """30,000 words of four Chinese characters each, whose frequencies fall as 1 / rank."""
    random = Random(1)
    characters = random.choices(HAN, weights=[1 / rank for rank in range(1, 3001)], k=120_000)
    words = ["".join(characters[i : i + 4]) for i in range(0, len(characters), 4)]
    return [" ".join(words[i : i + 10]) for i in range(0, len(words), 10)]


def unknown_share(tokenizer: Tokenizer, texts: list[str]) -> float:
    """Share of the characters, spaces apart, that the tokenizer has no piece for."""
    counts = Counter("".join(texts).replace(" ", ""))
    unknown = sum(counts[one] for one in counts if tokenizer.id_of("unk") in tokenizer.encode(one))
    return unknown / counts.total()


def test_characters_are_covered_as_far_as_asked_for_where_there_are_thousands() -> None:
    texts = zipf_texts()
    usual = train_translation_bpe(texts, vocab_size=4000)
    assert 0.0 < unknown_share(usual, texts) <= 0.0005
    assert "<unk>" not in usual.tokens(usual.encode("一 一一"))
    half = train_translation_bpe(texts, vocab_size=4000, character_coverage=0.95)
    assert 0.0495 < unknown_share(half, texts) <= 0.05
    assert unknown_share(train_translation_bpe(texts, vocab_size=4000, character_coverage=1.0), texts) == 0.0
    assert 0.0 < unknown_share(train_wordpiece(texts, vocab_size=8000), texts) <= 0.0005


def test_the_vocabulary_bounds_the_alphabet_and_spaces_stay_known() -> None:
    texts = zipf_texts()
    tokenizer = train_translation_bpe(texts, vocab_size=1500)
    assert tokenizer.vocab_size == 1500
    # <eos>, <unk>, <pad> and the space apart, every id is a character.
    assert sum(piece in HAN for piece in tokenizer.tokens(range(1500))) == 1496
    assert tokenizer.encode(HAN[0] + " ").count(tokenizer.id_of("unk")) == 0
    wordpiece = train_wordpiece(texts, vocab_size=2605)
    assert sum(piece in HAN for piece in wordpiece.tokens(range(2605))) == 1300


@pytest.mark.parametrize("train", [train_translation_bpe, train_wordpiece])
def test_a_thousand_characters_are_known_however_rare(train: Callable[..., Tokenizer]) -> None:
    texts = ["".join(HAN[:1]) * 10_000 + " " + " ".join(HAN[:999])]
    found = [train(texts, vocab_size=2100, character_coverage=share) for share in (0.5, 0.9995, 1.0)]
    assert len({tokenizer.hash for tokenizer in found}) == 1
    assert unknown_share(found[0], texts) == 0.0
