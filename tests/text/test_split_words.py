"""Running text is cut into words as corpora cut it, and every character that is no space is in exactly one of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.split_words import word_spans


def words(text: str, *, tokenised: bool = False) -> list[str]:
    return [text[start:stop] for start, stop in word_spans(text, tokenised=tokenised)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mary went to Paris.", "Mary|went|to|Paris|."),
        ('"Paris," said (Mary)!', '"|Paris|,|"|said|(|Mary|)|!'),
        ("the U.S. and the U.S., too", "the|U.S.|and|the|U.S.|,|too"),
        ("Jean-Luc's  5,000.50\u00a0francs\t...", "Jean-Luc's|5,000.50|francs|.|.|."),
        ("a . b ? '", "a|.|b|?|'"),
        ("  ", ""),
        ("", ""),
    ],
)
def test_marks_around_words_are_words_of_their_own(text: str, expected: str) -> None:
    assert words(text) == (expected.split("|") if expected else [])


def test_of_tokenised_text_white_space_alone_separates_words() -> None:
    assert words("Mary, (of U.S. ) .", tokenised=True) == ["Mary,", "(of", "U.S.", ")", "."]


@given(st.text(st.sampled_from("ab.,'\"( )\n\u00a0\u3000é-")), st.booleans())
def test_words_are_the_text_without_its_white_space_in_order(text: str, tokenised: bool) -> None:
    found = words(text, tokenised=tokenised)
    assert "".join(found) == "".join(text.split())
    assert all(found) and not any(character.isspace() for word in found for character in word)
