"""Windows against a slow reading of the definition, and answers that can be cut out of the passage as they stood."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.examples.questions import (
    QuestionExamples,
    WindowsConfig,
    most_context,
    question_examples,
    window_starts,
)
from pipeline.data.question_records import Answer, Question
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_wordpiece

WORDS = [f"{a}{b}" for a in "bdfg" for b in "aeiou"]
"""Every word is one token of `plain`."""


@pytest.fixture(scope="module")
def plain() -> Tokenizer:
    return train_wordpiece([" ".join(WORDS) + " , . ( ) ² ö"] * 9, vocab_size=120)


def asked(question: str, passage: str, *answers: str, name: str = "q") -> Question:
    """A question whose answers stand where they are first found."""
    return Question(name, question, passage, tuple(Answer(text, passage.index(text)) for text in answers))


def windows(max_length: int, stride: int, max_question_tokens: int) -> WindowsConfig:
    return WindowsConfig(max_length=max_length, stride=stride, max_question_tokens=max_question_tokens)


def slow_windows(num_tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Windows one after the other until one of them reaches the end."""
    found, start = [], 0
    while True:
        length = min(room, num_tokens - start)
        found.append((start, length))
        if start + length == num_tokens:
            return found
        start += stride


def slow_owner(found: list[tuple[int, int]], token: int) -> int:
    """The first window with the largest context of a token."""
    scores = []
    for start, length in found:
        inside = start <= token < start + length
        context = min(token - start, start + length - 1 - token) + 0.01 * length
        scores.append(context if inside else float("-inf"))
    return scores.index(max(scores))


@given(st.integers(1, 90), st.integers(1, 30), st.data())
def test_windows_and_the_tokens_of_which_they_show_most_are_those_of_the_definition(
    num_tokens: int, room: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, room))
    expected = slow_windows(num_tokens, room, stride)
    starts = window_starts(num_tokens, room=room, stride=stride)
    lengths = np.minimum(room, num_tokens - starts)
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == expected
    best_from, best_to = most_context(starts, lengths, num_tokens)
    owned = [[w for w in range(len(starts)) if best_from[w] <= token < best_to[w]] for token in range(num_tokens)]
    assert owned == [[slow_owner(expected, token)] for token in range(num_tokens)]


def test_a_row_is_question_and_window_and_every_token_belongs_to_one_window(plain: Tokenizer) -> None:
    question, passage = asked("ba be", " ".join(WORDS[:9])), plain.encode(" ".join(WORDS[:9]))
    data = question_examples([question], plain, windows(10, 3, 3))  # room for five tokens: 0-4, 3-7, 6-8
    cls, sep = plain.id_of("cls"), plain.id_of("sep")
    batch = data.collate(np.array([2, 0, 1]), 0)
    head = [cls, *plain.encode("ba be"), sep]
    rows = [[*head, *passage[6:9], sep], [*head, *passage[:5], sep], [*head, *passage[3:8], sep]]
    assert batch.input_ids.tolist() == [rows[0] + [plain.pad_id] * 2, *rows[1:]]
    assert batch.token_type_ids.tolist() == [[0] * 4 + [1] * 4 + [0] * 2, [0] * 4 + [1] * 6, [0] * 4 + [1] * 6]
    assert batch.attention_mask.sum(1).tolist() == data.sizes(0).lengths[[2, 0, 1]].tolist() == [8, 10, 10]
    assert batch.may_end.nonzero().tolist() == [[0, t] for t in (4, 5, 6)] + [
        [row, t] for row in (1, 2) for t in range(4, 9)
    ]
    # Window 0-4 shows tokens 0 to 3 best, window 3-7 tokens 4 to 6 (of 6: three before it and one behind it, and none
    # before it in the last window), window 6-8 tokens 7 and 8.
    assert [row.nonzero().flatten().tolist() for row in batch.may_begin] == [[5, 6], [4, 5, 6, 7], [5, 6, 7]]


def test_sizes_count_one_target_a_window_and_a_row_does_not_depend_on_its_batch(plain: Tokenizer) -> None:
    questions = [asked("ba", " ".join(WORDS[:n]), WORDS[n - 1], name=str(n)) for n in (3, 12, 20)]
    data = question_examples(questions, plain, windows(12, 4, 2))
    sizes = data.sizes(0)
    everything = np.arange(len(sizes.lengths))
    together = data.collate(everything, 0)
    assert sizes.num_targets["loss"].tolist() == [1] * len(everything)
    for i in everything.tolist():
        alone = data.collate(np.array([i]), 0)
        for field in dataclasses.fields(alone):
            one, row = getattr(alone, field.name)[0], getattr(together, field.name)[i]
            assert torch.equal(row[: len(one)] if one.ndim else row, one)


def answered(data: QuestionExamples, window: int) -> str | None:
    """The text at the answer of a window, cut out of the passage; None where it points to [CLS]."""
    batch = data.collate(np.array([window]), 0)
    start, end = int(batch.starts[0]), int(batch.ends[0])
    if (start, end) == (0, 0):
        return None
    number = int(data.windows.question[window])
    shift = int(data.windows.start[window]) - data.passage_at(window)
    assert batch.may_end[0, start] and batch.may_end[0, end]
    begin, stop = data.passages[number].characters_of(start + shift, end + shift)
    return data.passages[number].text[begin:stop]


@given(st.data())
def test_an_answer_is_cut_out_as_it_stood_in_every_window_that_holds_it_whole(data: st.DataObject) -> None:
    tokenizer = train_wordpiece([" ".join(WORDS) + " , . ( ) ²"] * 9, vocab_size=120)
    pieces = data.draw(st.lists(st.sampled_from([*WORDS, "Öa", ",", "(", "²", "🏔"]), min_size=1, max_size=30))
    spaces = data.draw(st.lists(st.sampled_from([" ", "  ", "\n", "\t "]), min_size=len(pieces), max_size=len(pieces)))
    passage = "".join(piece + space for piece, space in zip(pieces, spaces, strict=True))
    first = data.draw(st.integers(0, len(pieces) - 1))
    last = data.draw(st.integers(first, len(pieces) - 1))
    start = sum(len(piece + space) for piece, space in zip(pieces[:first], spaces, strict=False))
    end = (
        start + sum(len(p + s) for p, s in zip(pieces[first:last], spaces[first:last], strict=True)) + len(pieces[last])
    )
    text = passage[start:end]
    examples = question_examples([Question("q", "ba", passage, (Answer(text, start),))], tokenizer, windows(12, 3, 1))
    num_tokens = [len(tokenizer.encode(piece)) for piece in pieces]
    tokens = range(sum(num_tokens[:first]), sum(num_tokens[: last + 1]))
    for window in range(len(examples.windows.start)):
        begin, length = int(examples.windows.start[window]), int(examples.windows.length[window])
        is_whole = begin <= tokens[0] and tokens[-1] < begin + length
        assert answered(examples, window) == (text if is_whole else None)
    assert examples.num_inexact == 0


def test_offsets_are_characters_of_the_untouched_passage(plain: Tokenizer) -> None:
    passage = "🏔 BÄ (fö\u0308du)  gá\u0301\n\nBU."
    for text in ("BÄ", "fö\u0308du", "gá\u0301", "BÄ (fö\u0308du)  gá\u0301\n\nBU", "🏔", "(fö\u0308du)"):
        data = question_examples([asked("ba", passage, text)], plain, windows(40, 8, 8))
        assert answered(data, 0) == text


def test_an_answer_inside_of_a_token_is_widened_to_it_and_counted(plain: Tokenizer) -> None:
    tokenizer = train_wordpiece(["japanese war"] * 9, vocab_size=60)
    assert len(tokenizer.encode("japanese")) == 1
    questions = [asked("war", "japanese war", "japan", name="a"), asked("war", "japanese war", "war", name="b")]
    data = question_examples(questions, tokenizer, windows(20, 8, 4))
    assert [answered(data, window) for window in range(2)] == ["japanese", "war"]
    assert data.num_inexact == 1


def test_an_answer_that_no_window_holds_is_counted_and_every_window_points_to_cls(plain: Tokenizer) -> None:
    questions = [
        asked("ba", " ".join(WORDS[:9]), " ".join(WORDS[:6]), name="long"),
        asked("ba", " ".join(WORDS[:9]), WORDS[8], name="short"),
        asked("ba", " ".join(WORDS[:9]), name="none"),
    ]
    data = question_examples(questions, plain, windows(9, 2, 1))  # room for five tokens
    assert data.num_out_of_reach == 1
    assert [answered(data, window) for window in range(9)] == [None] * 5 + [WORDS[8]] + [None] * 3
    assert data.windows.question.tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_a_long_question_loses_its_end_and_is_counted(plain: Tokenizer) -> None:
    questions = [asked(" ".join(WORDS[:n]), "ba be bi", name=str(n)) for n in (2, 3, 4, 9)]
    data = question_examples(questions, plain, windows(10, 3, 3))
    assert data.num_shortened == 2
    assert [ids.tolist() for ids in data.question_ids] == [
        plain.encode(" ".join(WORDS[: min(n, 3)])) for n in (2, 3, 4, 9)
    ]


def test_the_first_of_several_answers_is_the_one_that_is_learned(plain: Tokenizer) -> None:
    data = question_examples([asked("ba", "be bi bo", "bo", "be")], plain, windows(20, 8, 4))
    assert answered(data, 0) == "bo"


def test_a_passage_is_kept_once_for_all_its_questions(plain: Tokenizer) -> None:
    data = question_examples([asked("ba", "be bi", name=str(i)) for i in range(3)], plain, windows(20, 8, 4))
    assert data.passages[0] is data.passages[2]


def test_a_passage_without_a_token_has_a_window_in_which_nothing_may_begin(plain: Tokenizer) -> None:
    data = question_examples([asked("ba", "\u200b")], plain, windows(20, 8, 4))
    batch = data.collate(np.array([0]), 0)
    assert batch.input_ids.shape == (1, 4) and not batch.may_begin.any() and not batch.may_end.any()


def test_questions_and_answers_without_a_token_are_named(plain: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"question 'q7': no token in the question '\\x07'"):
        question_examples([asked("\u0007", "ba be", name="q7")], plain, windows(20, 8, 4))
    with pytest.raises(ValueError, match=r"question 'q8': no token in the answer '\\x07'"):
        question_examples([asked("ba", "ba \u0007 be", "\u0007", name="q8")], plain, windows(20, 8, 4))


def test_windows_that_would_leave_tokens_between_them_are_refused() -> None:
    assert windows(11, 4, 4).stride == 4
    with pytest.raises(
        ValidationError, match="stride: 5 is more than the 4 tokens of the passage that a row of 11 holds"
    ):
        windows(11, 5, 4)
    default = WindowsConfig()
    assert (default.max_length, default.stride, default.max_question_tokens) == (384, 128, 64)
