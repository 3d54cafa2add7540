"""The command translate says which lines have something that the model does not know, and names it."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.inference.translator import Translator
from pipeline.inference.translator_folder import open_translator
from pipeline.models.seq2seq import Seq2Seq
from pipeline.text.given_tokenizer import translation_tokenizer
from pipeline.text.tokenizer_training import train_wordpiece
from tests.cli.conftest import TEXTS
from tests.cli.test_translate import FOLDER, WORDS, streamed, wish


@pytest.fixture
def translator(inside: Path) -> Translator:
    return open_translator(Path(FOLDER, "transformer"))


def test_lines_with_characters_that_the_model_does_not_know_are_counted_and_the_characters_named(
    translator: Translator,
) -> None:
    lines = ["the cat", "", "the \u05e9\u05dc cat", "a \U0001f642 dog \u05e9"]
    _, tally = streamed(translator, lines, wish(lines_at_once=2))
    (note,) = (one for one in tally.notes(translator) if one.startswith("unknown: "))
    assert note == (
        "unknown: 2 of 4 lines have characters that the model does not know, first line 3: \u05e9 \u05dc \U0001f642"
    )
    _, tally = streamed(translator, WORDS, wish())
    assert not tally.unknown


def test_lines_with_words_that_a_wordpiece_does_not_know_are_counted_and_the_words_named(
    translator: Translator, tmp_path: Path
) -> None:
    """Its letters are all known; a word is not that is too long, or has a letter where there is no piece of it."""
    train_wordpiece(TEXTS, vocab_size=80).save(tmp_path)
    tokenizer = translation_tokenizer(tmp_path)
    assert isinstance(translator.model, Seq2Seq)
    shape = translator.model.config.model_copy(update={"vocab_size": tokenizer.vocab_size})
    one = replace(translator, model=Seq2Seq(shape).eval(), tokenizer=tokenizer)
    long = "cat" * 40
    lines = ["the cat", f"the {long} \u05e9at", "the dog", "", "a Dog\u05e9 \u05e9at"]
    _, tally = streamed(one, lines, wish(lines_at_once=2))
    (note,) = (note for note in tally.notes(one) if note.startswith("unknown: "))
    assert note == (
        "unknown: 2 of 5 lines have words that the model does not know, first line 2: "
        f"{long[:40]}... \u05e9at Dog\u05e9"
    )


def test_the_end_of_a_text_that_is_the_unknown_token_too_is_no_unknown_word(translator: Translator) -> None:
    special = dict(translator.tokenizer.special) | {"unk": translator.tokenizer.special["eos"]}
    one = replace(translator, tokenizer=replace(translator.tokenizer, special=special))
    _, tally = streamed(one, WORDS, wish())
    assert tally.num_lines == len(WORDS) and not tally.unknown
