"""Entities and their scores, worked by hand."""

import pytest

from pipeline.evaluation.tagging import Entity, entities, entity_score


def test_entities_begin_at_b_end_before_o_or_another_entity_and_at_the_end_of_the_sentence() -> None:
    tags = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC", "O", "B-ORG"]
    assert entities(tags) == {Entity("PER", 0, 2), Entity("LOC", 3, 4), Entity("LOC", 4, 6), Entity("ORG", 7, 8)}


def test_an_inside_tag_that_continues_nothing_begins_an_entity() -> None:
    assert entities(["O", "I-PER", "I-PER"]) == {Entity("PER", 1, 3)}
    assert entities(["B-PER", "I-LOC", "I-LOC"]) == {Entity("PER", 0, 1), Entity("LOC", 1, 3)}


def test_types_may_hold_a_hyphen() -> None:
    assert entities(["B-geo-political", "I-geo-political"]) == {Entity("geo-political", 0, 2)}


@pytest.mark.parametrize("tag", ["B", "I-", "X-PER", "PER", "O-PER", ""])
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="at word 1"):
        entities(["O", tag])


def test_an_entity_counts_only_if_type_and_both_ends_are_right() -> None:
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O", "O"], ["O", "B-PER"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "I-ORG", "O"], ["O", "O"]]
    score = entity_score(predicted, true)  # right: 1 of 3 predicted, of 4 true
    assert score.precision == pytest.approx(1 / 3)
    assert score.recall == pytest.approx(1 / 4)
    assert score.f1 == pytest.approx(2 * (1 / 3) * (1 / 4) / (1 / 3 + 1 / 4))
    assert (score.num_predicted, score.num_true) == (3, 4)


def test_the_score_is_of_all_sentences_together_not_a_mean() -> None:
    right, wrong = ["B-PER"], ["B-PER", "B-PER", "B-PER"]
    score = entity_score([right, ["O", "O", "O"]], [right, wrong])
    assert score.recall == pytest.approx(1 / 4)


def test_tagging_everything_o_scores_zero() -> None:
    assert entity_score([["O", "O"]], [["B-PER", "O"]]).f1 == 0.0
    assert entity_score([["O"]], [["O"]]).f1 == 0.0


def test_sentences_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="sentence 1: found 1 tags for 2 words"):
        entity_score([["O"], ["O"]], [["O"], ["O", "O"]])
