"""What target tokens spell: the text that was encoded, and Moses tokens where a tokenizer keeps no spaces."""

from collections.abc import Callable

import pytest

from pipeline.text.forms import PLAIN, MosesText, PlainText
from pipeline.text.target_text import TargetText
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe, train_translation_bpe, train_wordpiece

LINES = {
    "de": [
        'ein mann , der 2-jährig ist , kauft " 3,5 t-shirts " ( rot ) .',
        "er sagt : 1.000 euro ? nein !",
        "paul ' s hund ...",
    ],
    "en": ["it 's the dogs ' ball , isn 't it ?", "they 're here ; a boy 's and a girl 's part-time job ."],
    "fr": ["l' homme qu' il a vu n' est pas d' ici , aujourd' hui !", "jusqu' au cou , c' est-à-dire « là » ."],
    "it": ["l' uomo dell' altro paese e un' amica ."],
}


def moses(language: str, *, lowercase: bool = True) -> MosesText:
    return MosesText(kind="moses", src="en", tgt=language, lowercase=lowercase)


def spelled(lines: list[str], tokenizer: Tokenizer, form: PlainText | MosesText) -> list[str]:
    return [TargetText(tokenizer, form).of(ids) for ids in tokenizer.encode_batch(lines)]


@pytest.mark.parametrize("language", LINES)
def test_moses_tokens_come_back_from_a_wordpiece_as_they_were(language: str) -> None:
    lines = LINES[language]
    tokenizer = train_wordpiece(lines, vocab_size=120, lower_case=False)
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(lines)] != lines
    assert spelled(lines, tokenizer, moses(language)) == lines


def test_what_a_wordpiece_has_lost_besides_the_spaces_stays_lost() -> None:
    tokenizer = train_wordpiece(LINES["de"], vocab_size=120)
    (found,) = spelled(["Ein Mann , der 2-jährig ist ."], tokenizer, moses("de", lowercase=False))
    assert found == "ein mann , der 2-jahrig ist ."


def test_plain_text_of_a_wordpiece_is_what_its_decoder_makes_of_it() -> None:
    tokenizer = train_wordpiece(LINES["de"], vocab_size=120, lower_case=False)
    assert spelled(["ein mann, der 2-jährig ist."], tokenizer, PLAIN) == ["ein mann, der 2 - jährig ist."]


@pytest.mark.parametrize("train", [train_byte_bpe, train_translation_bpe])
def test_a_tokenizer_that_keeps_the_spaces_is_left_alone(train: Callable[..., Tokenizer]) -> None:
    """Even of text that Moses would cut otherwise."""
    lines = [*LINES["de"], "mann, der - die 3 , 5 , ( a"]
    tokenizer = train(lines, vocab_size=400)
    assert spelled(lines, tokenizer, moses("de")) == lines
