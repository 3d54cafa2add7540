"""The baseline of tagging by hand."""

from pipeline.evaluation.frequent_tags import frequent_tags, tag_by_frequency


def test_a_word_gets_its_most_frequent_tag_and_an_unknown_one_is_outside() -> None:
    known = frequent_tags(
        [
            (["Paris", "saw", "Paris"], ["B-LOC", "O", "B-PER"]),
            (["Paris", "saw"], ["B-LOC", "O"]),
            (["May", "May"], ["O", "B-PER"]),
        ]
    )
    # May was both once: B-PER is first in the alphabet. The case of a word counts.
    assert known == {"Paris": "B-LOC", "saw": "O", "May": "B-PER"}
    assert tag_by_frequency(known, ["May", "saw", "paris", "Paris"]) == ["B-PER", "O", "O", "B-LOC"]
