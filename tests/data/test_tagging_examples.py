"""Words keep their tags through the tokenizer: one target a word, whatever becomes of its characters."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipeline.data.examples.tagging import TaggingExamples, split_sentence, tagging_examples, untagged_examples
from pipeline.data.records import Tagged
from pipeline.text.tokenizer import Tokenizer

LABELS = ("O", "B-A", "I-A")
WORDS = ("the", "harbour", "of", "St.Malo", "schläft", "(locked)", "12%")
TAGS = ("O", "B-A", "I-A", "I-A", "O", "O", "O")


def examples(tokenizer: Tokenizer, *, max_length: int = 100) -> TaggingExamples:
    return tagging_examples([Tagged("a.txt:1", WORDS, TAGS)], tokenizer, labels=LABELS, max_length=max_length)


def test_a_word_has_its_label_at_its_first_piece_and_nothing_else_is_a_target(wordpiece: Tokenizer) -> None:
    pieces = [wordpiece.encode(word) for word in WORDS]
    assert any(len(one) > 2 for one in pieces)
    batch = examples(wordpiece).collate(np.array([0]), 0)
    assert batch.input_ids[0].tolist() == [2, *(piece for word in pieces for piece in word), 3]
    targets, labels = [False], [0]
    for word, tag in zip(pieces, TAGS, strict=True):
        targets += [True] + [False] * (len(word) - 1)
        labels += [LABELS.index(tag)] + [0] * (len(word) - 1)
    assert batch.is_target[0].tolist() == [*targets, False]
    assert batch.labels[0].tolist() == [*labels, 0]
    assert not batch.token_type_ids.any() and batch.attention_mask.all()


def test_pieces_and_their_words_are_those_of_transformers(wordpiece: Tokenizer, tmp_path: Path) -> None:
    wordpiece.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)(list(WORDS), is_split_into_words=True)
    data = examples(wordpiece)
    assert data.input_ids[0].tolist() == theirs["input_ids"]
    word_ids = theirs.word_ids()
    assert data.asked[0].tolist() == [word_ids.index(word) for word in range(len(WORDS))]


@pytest.mark.parametrize("word", ["\x00", "\u200d", "\u00a0", "\u3000", "\ufffd", "", " ", "\u0301"])
def test_a_word_of_which_the_tokenizer_leaves_nothing_is_unknown_and_keeps_its_place(
    wordpiece: Tokenizer, word: str
) -> None:
    assert wordpiece.encode(word) == []
    sentence = Tagged("a.txt:1", ("the", word, "king"), ("O", "B-A", "I-A"))
    data = tagging_examples([sentence], wordpiece, labels=LABELS, max_length=30)
    batch = data.collate(np.array([0]), 0)
    the, king = wordpiece.encode("the"), wordpiece.encode("king")
    assert batch.input_ids[0].tolist() == [2, *the, wordpiece.id_of("unk"), *king, 3]
    assert batch.labels[batch.is_target].tolist() == [0, 1, 2]
    assert data.num_unreadable == 1


def test_text_that_spells_special_tokens_is_text(wordpiece: Tokenizer) -> None:
    data = untagged_examples([["[SEP]", "[PAD]"]], wordpiece, max_length=50)
    assert set(data.input_ids[0][1:-1]) & {0, 2, 3} == set()


def test_rows_hold_the_targets_that_sizes_count_and_do_not_depend_on_their_batch(wordpiece: Tokenizer) -> None:
    sentences = [Tagged(f"a.txt:{n}", WORDS[:n], TAGS[:n]) for n in (1, 7, 3)]
    data = tagging_examples(sentences, wordpiece, labels=LABELS, max_length=12)
    sizes, together = data.sizes(0), data.collate(np.arange(len(data.windows)), 0)
    assert data.num_split == 1 and len(data.windows) > 3
    assert sizes.num_targets["loss"].sum() == 1 + 7 + 3
    assert together.is_target.sum(1).tolist() == sizes.num_targets["loss"].tolist()
    assert together.attention_mask.sum(1).tolist() == sizes.lengths.tolist()
    assert sizes.lengths.max() <= 12
    for i in range(len(data.windows)):
        alone = data.collate(np.array([i]), 0)
        for field in dataclasses.fields(alone):
            one, row = getattr(alone, field.name), getattr(together, field.name)[i]
            assert row[: one.shape[1]].equal(one[0])
            assert not row[one.shape[1] :].any(), "padding is id 0, and counts for nothing"


def test_each_word_of_a_long_sentence_is_asked_for_once_with_its_own_label(wordpiece: Tokenizer) -> None:
    words = WORDS * 5
    numbers = np.arange(len(words))
    labels = [f"B-{n}" for n in numbers]
    for max_length in (3, 5, 9, 20, 400):
        sentence = Tagged("a.txt:1", words, tuple(labels))
        data = tagging_examples([sentence], wordpiece, labels=labels, max_length=max_length)
        batch = data.collate(np.arange(len(data.windows)), 0)
        assert batch.labels[batch.is_target].tolist() == numbers.tolist()
        firsts = [(wordpiece.encode(word) or [1])[0] for word in words]
        assert batch.input_ids[batch.is_target].tolist() == firsts


@given(st.lists(st.integers(1, 6), max_size=30), st.integers(6, 40))
def test_windows_cut_a_sentence_at_words_into_what_is_asked_and_its_context(lengths: list[int], room: int) -> None:
    windows = list(split_sentence(4, np.array(lengths, dtype=np.int64), room=room))
    asked = [word for one in windows for word in range(one.start, one.stop)]
    assert asked == list(range(len(lengths)))
    for one in windows:
        assert one.begin <= one.start < one.stop <= one.end <= len(lengths) and one.sentence == 4
        assert sum(lengths[one.begin : one.end]) <= room
    if sum(lengths) <= room:
        assert len(windows) == (len(lengths) > 0)


def test_words_asked_for_have_context_on_both_sides() -> None:
    windows = list(split_sentence(0, np.ones(100, dtype=np.int64), room=20))
    for one in windows:
        assert one.start - one.begin >= 5 or one.begin == 0
        assert one.end - one.stop >= 5 or one.end == 100
    assert [(one.start, one.stop) for one in windows[:3]] == [(0, 15), (15, 25), (25, 35)]
    assert windows[-1].end - windows[-1].begin == 20, "the last row reaches back as far as it can"


def test_a_word_longer_than_a_row_keeps_its_first_pieces_and_is_counted(wordpiece: Tokenizer) -> None:
    long = "/".join("abcdefgh")  # 15 pieces at least
    data = untagged_examples([["the", long, "king"]], wordpiece, max_length=8)
    batch = data.collate(np.arange(len(data.windows)), 0)
    assert data.num_shortened == 1
    assert batch.is_target.sum() == 3 and batch.input_ids.shape[1] <= 8
    (row,) = [row for row, window in zip(data.input_ids, data.windows, strict=True) if window.start == 1]
    assert row.tolist() == [2, *wordpiece.encode(long)[:6], 3]


def test_a_sentence_without_words_has_no_row(wordpiece: Tokenizer) -> None:
    data = untagged_examples([[], ["the"], []], wordpiece, max_length=8)
    assert [one.sentence for one in data.windows] == [1]
    assert data.num_words == (0, 1, 0)


def test_a_tag_outside_its_set_is_named_with_its_place(wordpiece: Tokenizer) -> None:
    sentences = [Tagged("a.txt:1", ("the",), ("O",)), Tagged("a.txt:3", ("the", "king"), ("O", "B-B"))]
    with pytest.raises(ValueError, match=r"a.txt:3, word 2: tag 'B-B' is not allowed; allowed are O, B-A, I-A"):
        tagging_examples(sentences, wordpiece, labels=LABELS, max_length=30)


def test_rows_without_room_for_a_word_are_refused(wordpiece: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"max_length: found 2, \[CLS\], a word and \[SEP\] need 3"):
        untagged_examples([["the"]], wordpiece, max_length=2)
