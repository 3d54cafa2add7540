"""Entities and their scores: worked by hand, as a slow conlleval counts them, and as seqeval 1.2.2 gave them."""

from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.tagging import entities, strict_entities, tagging_score
from pipeline.text.tags import Entity, write_tags
from tests.evaluation.slow_conlleval import counts


def test_entities_begin_at_b_end_before_o_or_another_entity_and_at_the_end_of_the_sentence() -> None:
    tags = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC", "O", "B-ORG"]
    assert entities(tags) == {Entity("PER", 0, 2), Entity("LOC", 3, 4), Entity("LOC", 4, 6), Entity("ORG", 7, 8)}


def test_an_inside_tag_that_continues_nothing_begins_an_entity() -> None:
    assert entities(["O", "I-PER", "I-PER"]) == {Entity("PER", 1, 3)}
    assert entities(["B-PER", "I-LOC", "I-LOC"]) == {Entity("PER", 0, 1), Entity("LOC", 1, 3)}


def test_types_may_hold_a_hyphen() -> None:
    assert entities(["B-geo-political", "I-geo-political"]) == {Entity("geo-political", 0, 2)}


def test_ends_and_single_words_of_bioes_and_bilou_are_read_with_or_without_their_beginnings() -> None:
    assert entities(["B-PER", "E-PER", "E-PER", "S-PER", "I-PER"]) == {
        Entity("PER", 0, 2),
        Entity("PER", 2, 3),
        Entity("PER", 3, 4),
        Entity("PER", 4, 5),
    }
    assert entities(["B-PER", "L-PER", "U-LOC"]) == {Entity("PER", 0, 2), Entity("LOC", 2, 3)}


def test_strict_reading_leaves_out_what_its_scheme_does_not_allow() -> None:
    assert strict_entities(["I-PER", "B-PER", "I-LOC", "B-LOC", "I-LOC"], "iob2") == {
        Entity("PER", 1, 2),
        Entity("LOC", 3, 5),
    }
    tags = ["B-PER", "O", "E-PER", "S-PER", "E-PER", "B-LOC", "B-LOC", "I-LOC", "E-LOC", "B-PER"]
    assert strict_entities(tags, "bioes") == {Entity("PER", 3, 4), Entity("LOC", 6, 9)}


@pytest.mark.parametrize("tag", ["B", "I-", "X-PER", "PER", "O-PER", ""])
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="at word 1"):
        entities(["O", tag])


def test_an_entity_counts_only_if_type_and_both_ends_are_right() -> None:
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O", "O"], ["O", "B-PER"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "I-ORG", "O"], ["O", "O"]]
    score = tagging_score(predicted, true).total  # right: 1 of 3 predicted, of 4 true
    assert score.precision == pytest.approx(1 / 3)
    assert score.recall == pytest.approx(1 / 4)
    assert score.f1 == pytest.approx(2 * (1 / 3) * (1 / 4) / (1 / 3 + 1 / 4))
    assert (score.num_predicted, score.num_true) == (3, 4)


def test_the_score_is_of_all_sentences_together_not_a_mean() -> None:
    right, wrong = ["B-PER"], ["B-PER", "B-PER", "B-PER"]
    score = tagging_score([right, ["O", "O", "O"]], [right, wrong]).total
    assert score.recall == pytest.approx(1 / 4)


def test_tagging_everything_o_scores_zero() -> None:
    assert tagging_score([["O", "O"]], [["B-PER", "O"]]).total.f1 == 0.0
    assert tagging_score([["O"]], [["O"]]).total.f1 == 0.0


def test_sentences_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="sentence 1: found 1 tags for 2 words"):
        tagging_score([["O"], ["O"]], [["O"], ["O", "O"]])


def test_every_type_has_a_score_of_its_own_and_the_tags_an_accuracy() -> None:
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG"]]
    score = tagging_score(predicted, true)
    assert list(score.by_type) == ["LOC", "ORG", "PER"]
    assert [one.f1 for one in score.by_type.values()] == [0.0, pytest.approx(2 / 3), 1.0]
    assert score.accuracy == pytest.approx(4 / 5)
    assert tagging_score([], []).accuracy == 0.0


IOB = st.sampled_from(["O", *(f"{mark}-{kind}" for mark in "BI" for kind in ("A", "B", "A-B"))])


@given(st.lists(st.lists(st.tuples(IOB, IOB), max_size=6), max_size=4))
def test_any_tags_of_iob1_and_iob2_score_as_conlleval_counts_them(words: list[list[tuple[str, str]]]) -> None:
    predicted, true = ([[pair[side] for pair in sentence] for sentence in words] for side in (0, 1))
    numbers, found = counts(predicted, true), tagging_score(predicted, true)
    assert set(found.by_type) == set(numbers["found"]) | set(numbers["wanted"])
    pairs = [(found.total, [one.total() for one in numbers.values()])]
    pairs += [(score, [one[kind] for one in numbers.values()]) for kind, score in found.by_type.items()]
    for score, (num_right, num_found, num_wanted) in pairs:
        assert (score.num_predicted, score.num_true) == (num_found, num_wanted)
        precision, recall = num_right / max(1, num_found), num_right / max(1, num_wanted)
        harmonic = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert (score.precision, score.recall, score.f1) == pytest.approx((precision, recall, harmonic))


@st.composite
def well_formed(draw: st.DrawFn) -> tuple[list[Entity], int]:
    """Entities side by side or apart, and the number of words."""
    found, place = [], 0
    for kind in draw(st.lists(st.sampled_from("AB"), max_size=5)):
        start = place + draw(st.integers(0, 1))
        place = start + draw(st.integers(1, 3))
        found.append(Entity(kind, start, place))
    return found, place


@given(well_formed())
def test_correct_tags_mean_the_same_in_every_scheme_and_in_both_readings(sentence: tuple[list[Entity], int]) -> None:
    wanted, num_words = sentence
    assert entities(write_tags(wanted, num_words, "iob1")) == set(wanted)
    for scheme in ("iob2", "bioes", "bilou"):
        tags = write_tags(wanted, num_words, scheme)
        assert entities(tags) == strict_entities(tags, scheme) == set(wanted)


# True tags, a bar, predicted tags; many of the former are not well formed either.
IOB2_SAMPLE = """
I-B B-A O I-B O B-B I-B | I-B B-A O I-B O B-B I-B
O B-B O O B-B I-B | B-B B-B O O B-B I-B
I-B I-A B-B O B-B | I-B I-A B-B O B-B
I-B O I-B B-A O | I-B O I-B B-A O
B-B B-B I-A O B-B | B-B B-B I-A O B-B
B-A B-B O O B-A I-A | B-A B-B O O B-A O
I-A B-B I-B B-A B-A O I-A O | I-A B-B I-B B-A B-A O I-A I-A
B-B I-B I-A B-A I-B O B-B | B-A I-B I-A B-A I-B B-A B-B
"""
BIOES_SAMPLE = """
B-A E-A B-A I-A E-A O B-A I-A E-A O | B-A E-A B-A I-A E-A O B-A I-A E-A O
S-B O S-A O | E-B O S-A O
O S-A O | O E-A O
B-B I-B E-B S-A O | B-B I-B E-B S-A O
O B-A E-A B-B I-B E-B O | O B-A E-A B-B I-B E-B O
B-A I-A E-A O S-A O | B-A I-A E-A O S-A O
B-B E-B O | B-B E-B O
O B-B I-B E-B O B-A E-A B-A I-A E-A O | O B-B I-B B-A O B-A E-A B-A I-A E-A O
"""


def columns(sample: str) -> tuple[list[Sequence[str]], list[Sequence[str]]]:
    """Predicted and true tags."""
    halves = [line.split("|") for line in sample.strip().splitlines()]
    return [predicted.split() for _, predicted in halves], [true.split() for true, _ in halves]


@pytest.mark.parametrize(
    ("sample", "precision", "recall", "f1", "f1_of_types"),
    [
        (IOB2_SAMPLE, 0.8181818181818182, 0.9, 0.8571428571428572, [0.7692307692307693, 0.918918918918919]),
        (BIOES_SAMPLE, 0.8823529411764706, 0.9375, 0.9090909090909091, [0.9565217391304348, 0.8]),
    ],
)
def test_scores_are_those_of_seqeval_by_default(
    sample: str, precision: float, recall: float, f1: float, f1_of_types: list[float]
) -> None:
    found = tagging_score(*columns(sample))
    assert (found.total.precision, found.total.recall, found.total.f1) == pytest.approx((precision, recall, f1))
    assert [one.f1 for one in found.by_type.values()] == pytest.approx(f1_of_types)


def test_scores_are_those_of_seqeval_in_strict_mode() -> None:
    iob2 = tagging_score(*columns(IOB2_SAMPLE), read=partial(strict_entities, scheme="iob2")).total
    assert (iob2.precision, iob2.recall, iob2.f1) == pytest.approx((0.8095238095238095, 0.8947368421052632, 0.85))
    bioes = tagging_score(*columns(BIOES_SAMPLE), read=partial(strict_entities, scheme="bioes")).total
    assert (bioes.precision, bioes.recall, bioes.f1) == pytest.approx((1.0, 0.8125, 0.896551724137931))
