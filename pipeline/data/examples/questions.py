"""Questions about passages -> QuestionBatch: [CLS] question [SEP] window of the passage [SEP].

As in Devlin et al. (2019, section 4.2) and their code: a passage that is too long is read through windows that begin
`stride` tokens apart, and each window is an example. Answers are found by their characters, and predictions are cut out
of the untouched passage by theirs.

Legend: B batch, T the longest row, Q questions, N windows, K windows of one question, L tokens of its passage,
R tokens that are read.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from pydantic import PositiveInt, model_validator

from pipeline.config import Config
from pipeline.data.batches import QuestionBatch, Sizes
from pipeline.data.examples.padding import pad_ids, pad_mask
from pipeline.data.question_records import Question
from pipeline.text.tokenizer import PlacedTokens, Tokenizer

_NUM_SPECIAL = 3
"""[CLS], [SEP] and [SEP]."""
_SHARE_OF_LENGTH = 0.01
"""What a token of a window's length counts beside one of context, where two windows show equally much."""
_ENCODED_AT_ONCE = 1000


class WindowsConfig(Config):
    """How question and passage become rows of tokens; the defaults are those of Devlin et al. (2019)."""

    max_length: PositiveInt = 384
    """Longest row in tokens, [CLS] and both [SEP] counted; a longer passage is read through several windows."""
    stride: PositiveInt = 128
    """Tokens of the passage from the beginning of a window to that of the next."""
    max_question_tokens: PositiveInt = 64
    """Longest question in tokens; a longer one loses its end, and is counted."""

    @model_validator(mode="after")
    def _no_token_between_windows(self) -> "WindowsConfig":
        check_windows(self.max_length, self.stride, self.max_question_tokens)
        return self


def check_windows(max_length: int, stride: int, max_question_tokens: int) -> None:
    """ValueError for windows between which tokens of the passage would stay unread."""
    room = max_length - max_question_tokens - _NUM_SPECIAL
    if stride > room:
        raise ValueError(
            f"stride: {stride} is more than the {room} tokens of the passage that a row of {max_length} holds beside a "
            f"question of {max_question_tokens}: tokens between windows would not be read"
        )


@dataclass(frozen=True)
class PlacedPassage:
    """A passage, its tokens, and the characters of each."""

    text: str
    ids: Int[np.ndarray, "L"]
    begins: Int[np.ndarray, "L"]
    """Place of the first character of each token."""
    ends: Int[np.ndarray, "L"]
    """Place behind the last character of each token."""

    def tokens_of(self, start: int, end: int) -> tuple[int, int]:
        """First and last of the tokens that share characters with `start` to `end`; the last is before the first where
        no token does."""
        return int(np.searchsorted(self.ends, start, "right")), int(np.searchsorted(self.begins, end, "left")) - 1

    def characters_of(self, first: int, last: int) -> tuple[int, int]:
        """Begin and end of the text of tokens `first` to `last`; accents that were stripped from it belong to it."""
        end = int(self.ends[last])
        while end < len(self.text) and unicodedata.combining(self.text[end]):
            end += 1
        return int(self.begins[first]), end


@dataclass(frozen=True)
class Windows:
    """The windows of all questions, those of one question in a row; positions count tokens of the passage."""

    question: Int[np.ndarray, "N"]
    """Number of the question."""
    start: Int[np.ndarray, "N"]
    """First token of the passage."""
    length: Int[np.ndarray, "N"]
    """How many of them."""
    best_from: Int[np.ndarray, "N"]
    """First token of which no window shows more context than this one."""
    best_to: Int[np.ndarray, "N"]
    """Behind the last such token; they are consecutive."""


@dataclass(frozen=True)
class QuestionExamples:
    """Windows with the answers in them, one row each; the same in every epoch."""

    question_ids: tuple[Int[np.ndarray, "_"], ...]
    """Tokens of each question, shortened."""
    passages: tuple[PlacedPassage, ...]
    """The passage of each question; equal ones are one object."""
    windows: Windows
    starts: Int[np.ndarray, "N"]
    """Position of the answer's first token in the row of each window, 0 where it does not hold the whole answer."""
    ends: Int[np.ndarray, "N"]
    cls_id: int
    sep_id: int
    pad_id: int
    is_shortened: Bool[np.ndarray, "Q"]
    """True for the questions that lost their ends."""
    num_out_of_reach: int
    """Questions whose answer is whole in no window."""
    num_inexact: int
    """Questions whose answer begins or ends inside of a token: it cannot be cut out exactly."""

    @property
    def num_shortened(self) -> int:
        """Questions that lost their ends."""
        return int(self.is_shortened.sum())

    def token_ids(self) -> Int[np.ndarray, "R"]:
        """Every token of a batch, padding too, once and in order."""
        # Equal passages are one object.
        passages = {id(passage): passage.ids for passage in self.passages}
        return np.unique(
            np.concatenate((*self.question_ids, *passages.values(), [self.cls_id, self.sep_id, self.pad_id]))
        )

    def sizes(self, epoch: int) -> Sizes:
        """Row lengths; one target each."""
        asked = np.array([len(ids) for ids in self.question_ids], dtype=np.int64)
        lengths = _NUM_SPECIAL + asked[self.windows.question] + self.windows.length
        return Sizes(lengths=lengths, num_targets={"loss": np.ones_like(lengths)})

    def passage_at(self, window: int) -> int:
        """Position of the passage's first token in the row of a window."""
        return len(self.question_ids[self.windows.question[window]]) + _NUM_SPECIAL - 1

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> QuestionBatch:
        """The right-padded batch of some windows."""
        windows = self.windows
        rows, types, begins, ends = [], [], [], []
        for i in indices.tolist():
            number, start, length = int(windows.question[i]), int(windows.start[i]), int(windows.length[i])
            question, passage = self.question_ids[number], self.passages[number].ids[start : start + length]
            row = np.concatenate(([self.cls_id], question, [self.sep_id], passage, [self.sep_id])).astype(np.int64)
            at = self.passage_at(i)
            positions = np.arange(len(row)) - at + start
            rows.append(row)
            types.append((np.arange(len(row)) >= at).astype(np.int64))
            begins.append((windows.best_from[i] <= positions) & (positions < windows.best_to[i]))
            ends.append((start <= positions) & (positions < start + length))
        return QuestionBatch(
            input_ids=pad_ids(rows, self.pad_id),
            token_type_ids=pad_ids(types, 0),
            attention_mask=pad_mask([np.ones(len(row), dtype=bool) for row in rows]),
            starts=torch.from_numpy(self.starts[indices]),
            ends=torch.from_numpy(self.ends[indices]),
            may_begin=pad_mask(begins),
            may_end=pad_mask(ends),
        )


def check_tokens(question: Question, ids: Sequence[int]) -> None:
    """ValueError names the id of a question whose text has no tokens."""
    if not ids:
        raise ValueError(f"question {question.id!r}: no token in the question {question.question[:60]!r}")


def question_examples(questions: Sequence[Question], tokenizer: Tokenizer, windows: WindowsConfig) -> QuestionExamples:
    """Every question with the windows of its passage; what counts as the answer is the first one.

    ValueError names the id of a question without a token, and of an answer without one.
    """
    asked = [placed.ids for placed in _encoded([question.question for question in questions], tokenizer)]
    different = list(dict.fromkeys(question.passage for question in questions))
    placed = dict(zip(different, map(_placed, different, _encoded(different, tokenizer)), strict=True))
    passages = tuple(placed[question.passage] for question in questions)
    question_ids = tuple(np.array(ids[: windows.max_question_tokens], dtype=np.int64) for ids in asked)
    cut = _cut(question_ids, passages, windows)
    counts = {"out_of_reach": 0, "inexact": 0}
    starts, ends = np.zeros_like(cut.start), np.zeros_like(cut.start)
    borders = np.searchsorted(cut.question, np.arange(len(questions) + 1))
    for number, question in enumerate(questions):
        check_tokens(question, asked[number])
        if not question.answers:
            continue
        answer, passage = question.answers[0], passages[number]
        first, last = passage.tokens_of(answer.start, answer.end)
        if last < first:
            raise ValueError(f"question {question.id!r}: no token in the answer {answer.text!r}")
        counts["inexact"] += passage.characters_of(first, last) != (answer.start, answer.end)
        own = slice(borders[number], borders[number + 1])
        is_whole = (cut.start[own] <= first) & (last < cut.start[own] + cut.length[own])
        at = len(question_ids[number]) + _NUM_SPECIAL - 1 - cut.start[own]
        starts[own], ends[own] = np.where(is_whole, first + at, 0), np.where(is_whole, last + at, 0)
        counts["out_of_reach"] += not is_whole.any()
    return QuestionExamples(
        question_ids=question_ids,
        passages=passages,
        windows=cut,
        starts=starts,
        ends=ends,
        cls_id=tokenizer.id_of("cls"),
        sep_id=tokenizer.id_of("sep"),
        pad_id=tokenizer.pad_id,
        is_shortened=np.array([len(ids) > windows.max_question_tokens for ids in asked], dtype=bool),
        num_out_of_reach=counts["out_of_reach"],
        num_inexact=counts["inexact"],
    )


def window_starts(num_tokens: int, *, room: int, stride: int) -> Int[np.ndarray, "K"]:
    """First tokens of the windows, `room` tokens long, of a passage: `stride` apart until one reaches the end.

    A passage without tokens has one window all the same, without tokens.
    """
    return np.arange(1 + max(0, -(-(num_tokens - room) // stride)), dtype=np.int64) * stride


def most_context(
    starts: Int[np.ndarray, "K"], lengths: Int[np.ndarray, "K"], num_tokens: int
) -> tuple[Int[np.ndarray, "K"], Int[np.ndarray, "K"]]:
    """For each window of a passage the tokens, first and behind the last, of which it shows the most context.

    The context of a token in a window is the smaller of the number of tokens before and behind it, plus a hundredth of
    the window's length; of equal windows the first one counts (the code of Devlin et al. 2019). From one window to the
    next the difference of the two contexts never falls as the token moves on, so each window has consecutive tokens.
    """
    position = np.arange(num_tokens)
    before = position - starts[:, None]
    behind = starts[:, None] + lengths[:, None] - 1 - position
    context = np.minimum(before, behind)
    owner = np.where(context >= 0, context + _SHARE_OF_LENGTH * lengths[:, None], -np.inf).argmax(0)
    numbers = np.arange(len(starts))
    return np.searchsorted(owner, numbers, "left"), np.searchsorted(owner, numbers, "right")


def _cut(
    question_ids: Sequence[Int[np.ndarray, "_"]], passages: Sequence[PlacedPassage], config: WindowsConfig
) -> Windows:
    question, start, length, best_from, best_to = [], [], [], [], []
    for number, (ids, passage) in enumerate(zip(question_ids, passages, strict=True)):
        num_tokens, room = len(passage.ids), config.max_length - len(ids) - _NUM_SPECIAL
        starts = window_starts(num_tokens, room=room, stride=config.stride)
        lengths = np.minimum(room, num_tokens - starts)
        own_from, own_to = most_context(starts, lengths, num_tokens)
        question.append(np.full_like(starts, number))
        start.append(starts)
        length.append(lengths)
        best_from.append(own_from)
        best_to.append(own_to)
    return Windows(*(_joined(part) for part in (question, start, length, best_from, best_to)))


def _joined(parts: Sequence[np.ndarray]) -> Int[np.ndarray, "N"]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _encoded(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[PlacedTokens]:
    """The tokens of many texts; the library's own records of them are large, so only some exist at once."""
    for begin in range(0, len(texts), _ENCODED_AT_ONCE):
        yield from tokenizer.encode_placed(texts[begin : begin + _ENCODED_AT_ONCE])


def _placed(text: str, tokens: PlacedTokens) -> PlacedPassage:
    places = np.array(tokens.offsets, dtype=np.int64).reshape(-1, 2)
    return PlacedPassage(text, np.array(tokens.ids, dtype=np.int64), places[:, 0].copy(), places[:, 1].copy())
