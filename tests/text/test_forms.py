"""The form of the texts that a translation model reads and writes."""

from pathlib import Path

import pytest
from sacremoses import MosesTokenizer

from pipeline.text.forms import PLAIN, MosesText, into_form, load_form, out_of_form, save_form
from pipeline.text.moses import LANGUAGES

MOSES = MosesText(kind="moses", src="en", tgt="de", lowercase=True)


def test_moses_text_is_normalised_tokenised_and_in_lower_case() -> None:
    assert into_form("“It\u2019s a U.S. dog,” he said.", MOSES, "src") == '" it \'s a u.s. dog , " he said .'
    cased = MosesText(kind="moses", src="en", tgt="de", lowercase=False)
    assert into_form("A man's hat.", cased, "src") == "A man 's hat ."


@pytest.mark.parametrize(
    ("text", "lower", "cased"),
    [
        ("Der Mann hat einen Bart.", "der mann hat einen bart .", "Der Mann hat einen Bart."),
        ("Ein Hund bellt. Er rennt.", "ein hund bellt. er rennt .", "Ein Hund bellt . Er rennt ."),
    ],
)
def test_a_text_is_in_lower_case_before_moses_looks_for_abbreviations(text: str, lower: str, cased: str) -> None:
    """Multi30k's lc.norm.tok files have both; the other order leaves `bart.` and `bellt .`."""
    assert into_form(text, MOSES, "tgt") == lower
    assert into_form(text, MosesText(kind="moses", src="en", tgt="de", lowercase=False), "tgt") == cased


def test_each_side_is_tokenised_as_its_own_language() -> None:
    french = MosesText(kind="moses", src="en", tgt="fr", lowercase=True)
    assert into_form("l'arbre", french, "tgt") == "l' arbre"
    assert into_form("l'arbre", french, "src") == "l 'arbre"


def test_tokens_are_put_together_again_as_people_write_them() -> None:
    assert out_of_form("ein mann , der lacht .", MOSES) == "ein mann, der lacht."
    french = MosesText(kind="moses", src="en", tgt="fr", lowercase=True)
    assert out_of_form("l' arbre est grand .", french) == "l'arbre est grand."


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("pošli e' - mail teď .", "pošli e'-mail teď."),
        ("e' \u2013 mailem", "e'\u2013mailem"),
        ("a - b' - li - li", "a - b'-li - li"),
        ("e' @-@ Mail' - LI !", "e'-Mail'-LI!"),
        ("e' - pošta , 5 - mail", "e' - pošta, 5 - mail"),
        ("- mail", "- mail"),
        ("e' -", "e' -"),
        ("mám 3 , 5 koruny a „ psa “ .", "mám 3, 5 koruny a „psa“."),
    ],
)
def test_czech_words_with_an_apostrophe_before_a_dash_are_joined_as_detokenizer_perl_joins_them(
    tokens: str, text: str
) -> None:
    """sacremoses 0.2.0 ends in a TypeError there."""
    assert out_of_form(tokens, MosesText(kind="moses", src="en", tgt="cs", lowercase=False)) == text


def test_no_character_is_written_as_an_entity_and_none_is_read_as_one() -> None:
    assert into_form("R&D [1] | <b>", MOSES, "src") == "r & d [ 1 ] | < b >"
    assert out_of_form("r &amp; d", MOSES) == "r &amp; d"


@pytest.mark.parametrize("text", ["", "Hund", "ein  Text\twith spaces ", "“It\u2019s”"])
def test_plain_text_is_left_alone(text: str) -> None:
    assert into_form(text, PLAIN, "src") == text == out_of_form(text, PLAIN)


def test_empty_text_stays_empty() -> None:
    assert into_form("", MOSES, "src") == "" == out_of_form("", MOSES)


def test_a_folder_remembers_its_form_and_one_without_a_note_is_plain(tmp_path: Path) -> None:
    save_form(tmp_path, PLAIN)
    assert list(tmp_path.iterdir()) == [] and load_form(tmp_path) == PLAIN
    save_form(tmp_path, MOSES)
    assert load_form(tmp_path) == MOSES


@pytest.mark.parametrize("key", ["src", "tgt"])
@pytest.mark.parametrize("language", ["da", "cz", "xx", "deu", "english", "EN", ""])
def test_a_language_that_moses_has_no_rules_for_is_refused_with_its_key(
    tmp_path: Path, key: str, language: str
) -> None:
    """cz is a name of Czech that sacremoses knows in one place and takes for English in another."""
    values = {"kind": "moses", "src": "en", "tgt": "de", "lowercase": "true"} | {key: f"'{language}'"}
    (tmp_path / "text.json").write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    with pytest.raises(ValueError) as caught:
        load_form(tmp_path)
    (problem,) = str(caught.value).splitlines()[1:]
    assert problem.startswith(f"  {key}: ") and problem.endswith(f"zh, found {language!r}")
    assert "allowed are the languages that Moses has rules for: as, bn, ca, cs, de, " in problem


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_with_rules_is_tokenised_otherwise_than_an_unknown_one(language: str) -> None:
    """By its abbreviations, its apostrophes or its letters; an unknown one has the abbreviations of English."""
    known, unknown = MosesTokenizer(language), MosesTokenizer("xx")
    rules = (known.NONBREAKING_PREFIXES, known.IsAlpha, known.lang == "en")
    assert rules != (unknown.NONBREAKING_PREFIXES, unknown.IsAlpha, False)
    assert MosesText(kind="moses", src=language, tgt="en", lowercase=True).src == language


def test_the_languages_of_published_benchmarks_have_rules() -> None:
    assert {"cs", "de", "en", "es", "et", "fi", "fr", "hi", "ja", "ko", "lt", "lv", "ro", "ru", "zh"} <= set(LANGUAGES)


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text('{"kind": "moses", "src": "english"}')
    with pytest.raises(ValueError, match=r"text.json"):
        load_form(tmp_path)
