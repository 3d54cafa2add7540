"""What a tokenizer does not know of a text, named as it is lost: by the word, or by the character."""

import string
from pathlib import Path

import pytest

from pipeline.text.given_tokenizer import translation_tokenizer
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.unknown import UnknownCounts, has_unknown, shown_parts, unknown_kind, unknown_parts
from tests.text.test_given import SPECIAL, UNIGRAM, UNIGRAM_KIND, model

LETTERS = string.ascii_lowercase


@pytest.fixture
def letters(tmp_path: Path) -> Tokenizer:
    """A WordPiece of letters; one is known at the beginning of a word alone, another behind it alone."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{one}" for one in LETTERS), "ж", "##и"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return translation_tokenizer(tmp_path)


def named(text: str, tokenizer: Tokenizer) -> list[str]:
    ids = tokenizer.encode(text)
    return unknown_parts(text, tokenizer, num_tokens=len(ids)) if has_unknown(ids, tokenizer) else []


def test_a_wordpiece_loses_whole_words_whatever_is_unknown_of_them(letters: Tokenizer) -> None:
    assert unknown_kind(letters) == "words"
    long = "a" * 120
    for text, words in (
        (f"the {long} cat", [long]),
        ("the aж cat", ["aж"]),
        ("the иa Cafш, cafш aж", ["иa", "Cafш", ",", "cafш", "aж"]),
        ("the ж aи", []),
    ):
        assert named(text, letters) == words


def test_a_word_without_end_is_shown_by_its_beginning() -> None:
    assert shown_parts(["ab", "a" * 50, "c"], most=2) == f"ab {'a' * 40}..."


def test_the_words_of_a_corpus_come_by_their_number_and_the_rate_counts_tokens(letters: Tokenizer) -> None:
    texts = ["the aж", "ш aж aж", "the ш э"]
    counts = UnknownCounts(letters)
    counts.add(texts[:1], letters.encode_batch(texts[:1]))
    counts.add(texts[1:], letters.encode_batch(texts[1:]))
    assert counts.parts() == ["aж", "ш", "э"]
    # Six of the tokens t, ##h, ##e twice and the six words.
    assert counts.rate == pytest.approx(6 / 12)


def test_unknown_characters_are_named_one_by_one_even_where_one_token_stands_for_several(
    translation_bpe: Tokenizer, tmp_path: Path
) -> None:
    assert unknown_kind(translation_bpe) == "characters"
    assert named("the жч cat ж", translation_bpe) == ["ж", "ч"]
    fusing = translation_tokenizer(model(tmp_path, UNIGRAM, UNIGRAM_KIND))
    assert fusing.tokens(fusing.encode("the жч")) == ["▁the", "▁", "<unk>"] and SPECIAL[0][0] == "<unk>"
    assert named("the жч cat ж", fusing) == ["ж", "ч"]


def test_what_is_cut_off_is_not_named(translation_bpe: Tokenizer) -> None:
    text = "ж the ч"
    assert unknown_parts(text, translation_bpe, num_tokens=2) == ["ж"]


def test_a_tokenizer_without_an_unknown_token_knows_everything(byte_bpe: Tokenizer) -> None:
    counts = UnknownCounts(byte_bpe)
    counts.add(["жч"], byte_bpe.encode_batch(["жч"]))
    assert (counts.rate, counts.parts(), named("жч", byte_bpe)) == (0.0, [], [])
