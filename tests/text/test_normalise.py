import pytest

from pipeline.text.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? 4 is next.", ["One.", "Two!", "Three?", "4 is next."]),
        ("A line\nanother. Line\n\n", ["A line", "another.", "Line"]),
        (
            "Mr. Smith met J. P. Morgan in St. Louis. They talked.",
            ["Mr. Smith met J. P. Morgan in St. Louis.", "They talked."],
        ),
        ('He said "Go." Then he went. (It rained.) Done.', ['He said "Go."', "Then he went.", "(It rained.)", "Done."]),
        ("It cost 3.5 dollars, i.e. little. e.g. so", ["It cost 3.5 dollars, i.e. little. e.g. so"]),
        ("", []),
    ],
)
def test_text_is_cut_into_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_nothing_but_white_space_is_lost() -> None:
    text = 'Gov. Lee came.  "Was it so?" No. 5 was late!\nYes'
    assert "".join(sentences(text)).replace(" ", "") == "".join(text.split())
