"""Every scheme is read as it is defined, refuses what it does not allow, and is written back as it was read."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.tags import (
    Entity,
    Scheme,
    TagFault,
    iob2_tags,
    lenient_entities,
    marked,
    parse_tag,
    read_tags,
    write_tags,
)

SCHEMES: tuple[Scheme, ...] = ("iob1", "iob2", "bioes", "bilou")

# Two persons side by side, a place of three words directly behind them, a word outside, a place of one word.
ENTITIES = (Entity("PER", 0, 2), Entity("PER", 2, 3), Entity("LOC", 3, 6), Entity("LOC", 7, 8))
TAGGED = {
    "iob1": "I-PER I-PER B-PER I-LOC I-LOC I-LOC O I-LOC",
    "iob2": "B-PER I-PER B-PER B-LOC I-LOC I-LOC O B-LOC",
    "bioes": "B-PER E-PER S-PER B-LOC I-LOC E-LOC O S-LOC",
    "bilou": "B-PER L-PER U-PER B-LOC I-LOC L-LOC O U-LOC",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_entities_in_every_scheme(scheme: Scheme) -> None:
    tags = TAGGED[scheme].split()
    assert read_tags(tags, scheme) == ENTITIES
    assert write_tags(reversed(ENTITIES), 8, scheme) == tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_lenient_reader_finds_the_same_entities_in_every_scheme(scheme: Scheme) -> None:
    assert lenient_entities(TAGGED[scheme].split()) == ENTITIES


def test_a_lenient_reader_reads_a_mixture_of_schemes_as_conlleval_does_and_refuses_what_is_no_tag() -> None:
    tags = ["B-LOC", "I-PER", "I-PER", "B-PER", "O", "I-LOC", "B-LOC", "I-PER"]
    for scheme in SCHEMES:
        with pytest.raises(TagFault):
            read_tags(tags, scheme)
    assert lenient_entities(tags) == (
        Entity("LOC", 0, 1),
        Entity("PER", 1, 3),
        Entity("PER", 3, 4),
        Entity("LOC", 5, 6),
        Entity("LOC", 6, 7),
        Entity("PER", 7, 8),
    )
    with pytest.raises(TagFault, match="found 'NN'") as caught:
        lenient_entities(["O", "NN"])
    assert caught.value.position == 1


@st.composite
def sentences(draw: st.DrawFn) -> tuple[tuple[Entity, ...], int]:
    """Entities of three types, one of them with a hyphen, with and without words between them."""
    entities, place = [], 0
    for kind in draw(st.lists(st.sampled_from(["PER", "LOC", "geo-political"]), max_size=5)):
        start = place + draw(st.integers(0, 2))
        place = start + draw(st.integers(1, 3))
        entities.append(Entity(kind, start, place))
    return tuple(entities), place + draw(st.integers(0, 2))


@given(sentences(), st.sampled_from(SCHEMES))
def test_what_is_written_is_read_back(sentence: tuple[tuple[Entity, ...], int], scheme: Scheme) -> None:
    entities, num_words = sentence
    tags = write_tags(entities, num_words, scheme)
    assert len(tags) == num_words
    assert read_tags(tags, scheme) == entities


@given(st.lists(st.sampled_from(["O", *(f"{mark}-{kind}" for mark in "BIESLU" for kind in ("A", "B"))]), max_size=6))
def test_tags_that_are_read_are_the_only_ones_of_their_entities(tags: Sequence[str]) -> None:
    # Reading is strict: no second spelling of the same entities passes.
    for scheme in SCHEMES:
        try:
            entities = read_tags(tags, scheme)
        except TagFault:
            continue
        assert write_tags(entities, len(tags), scheme) == list(tags)


@pytest.mark.parametrize(
    ("scheme", "tags", "position", "message"),
    [
        ("iob2", "O I-PER", 1, "in iob2, I-PER goes on with an entity of its type .*, found 'I-PER' behind 'O'"),
        ("iob2", "B-LOC I-PER", 1, "found 'I-PER' behind 'B-LOC'"),
        ("iob2", "I-PER", 0, "found 'I-PER' behind 'nothing'"),
        ("iob2", "B-PER E-PER", 1, "a tag is O or one of B-TYPE, I-TYPE, found 'E-PER'"),
        ("iob1", "O B-PER", 1, "in iob1, B-PER stands directly behind an entity of its type only"),
        ("iob1", "I-LOC B-PER", 1, "in iob1"),
        ("bioes", "B-PER O", 1, "an entity of more than one word ends with E-TYPE, found 'O' behind 'B-PER'"),
        ("bioes", "O B-PER", 2, "ends with E-TYPE, found the end of the sentence behind 'B-PER'"),
        ("bioes", "B-PER S-PER", 1, "ends with E-TYPE"),
        ("bioes", "S-PER I-PER", 1, "in bioes, I-TYPE and E-TYPE go on with an entity of their type"),
        ("bioes", "B-PER E-LOC", 1, "go on with an entity of their type"),
        ("bioes", "U-PER", 0, "B-TYPE, I-TYPE, E-TYPE, S-TYPE, found 'U-PER'"),
        ("bilou", "B-PER I-PER", 2, "in bilou, an entity of more than one word ends with L-TYPE"),
        ("bilou", "S-PER", 0, "found 'S-PER'"),
    ],
)
def test_a_tag_in_the_wrong_place_is_named(scheme: Scheme, tags: str, position: int, message: str) -> None:
    with pytest.raises(TagFault, match=message) as caught:
        read_tags(tags.split(), scheme)
    assert caught.value.position == position


@pytest.mark.parametrize("tag", ["", "B", "I-", "PER", "O-PER", "-PER", "X-PER", "b-PER", "BI-PER", "B_PER"])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="a tag is O or one of"):
        parse_tag(tag)


@pytest.mark.parametrize("entities", [[("A", 0, 2), ("A", 1, 3)], [("A", 1, 1)], [("A", 2, 4)], [("A", -1, 1)]])
def test_entities_that_no_tags_can_say_are_refused(entities: list[tuple[str, int, int]]) -> None:
    with pytest.raises(ValueError, match="entities lie behind each other in a sentence of 3 words"):
        write_tags([Entity(*one) for one in entities], 3, "iob2")


def test_the_tags_of_some_types_are_outside_and_two_of_each() -> None:
    assert iob2_tags(["PER", "LOC"]) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_entities_are_shown_in_brackets_in_their_sentence() -> None:
    words = ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert marked(words, ENTITIES) == "[PER a b] [PER c] [LOC d e f] g [LOC h]"
    assert marked(words, []) == "a b c d e f g h"
