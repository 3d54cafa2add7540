"""Answering questions out of their passages: the spans of all windows become answers, and the folder that keeps how.

Shared by the stage finetune and by whatever opens its folder later. What is found for a question does not depend on the
questions beside it. Legend: B windows of a batch, T length in tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveInt, ValidationError

from pipeline.artifacts import load_model, read_json
from pipeline.config import first_problem
from pipeline.data.examples.questions import QuestionExamples, WindowsConfig, check_tokens, question_examples
from pipeline.data.plan import one_pass
from pipeline.data.question_records import Question
from pipeline.evaluation.held_out import in_view
from pipeline.evaluation.spans import Spans, top_spans
from pipeline.models.heads import SpanHead
from pipeline.models.huggingface.bert import span_head_from_huggingface
from pipeline.text.tokenizer import Tokenizer, load_tokenizer

SETTINGS = "question_answering.json"
"""The file of a model folder with `AnswererSettings`."""
_TOKENS_PER_BATCH = 8192
_NUM_SPANS = 20
"""Spans of a window that are compared with those of the other windows (Devlin et al. 2019, the code: 20)."""


class AnswererSettings(WindowsConfig):
    """How a model reads passages and what it says."""

    max_answer_tokens: PositiveInt = 30
    """Longest answer in tokens."""
    unanswerable: bool = False
    """Whether the model may say that the passage has no answer."""
    no_answer_threshold: float = 0.0
    """It says so where the score of "no answer", less that of the best span, is above this."""
    threshold_chosen_on: str = ""
    """The questions by which the threshold was chosen; empty where none was."""

    @property
    def highest_no_answer(self) -> float:
        """The largest score of "no answer", less that of the best span, with which the span is still the answer."""
        return self.no_answer_threshold if self.unanswerable else math.inf


@dataclass(frozen=True)
class FoundAnswer:
    """A piece of the passage."""

    text: str
    start: int
    """Place of its first character in the passage."""
    score: float
    """Score of its first token plus that of its last."""
    probability: float
    """Its share among all spans of all windows that are allowed, and "no answer" where that is."""


@dataclass(frozen=True)
class Answered:
    """What the model says to a question."""

    answers: tuple[FoundAnswer, ...]
    """The best spans, best first, each text once; none where the passage has no tokens."""
    no_answer: float
    """The score of "no answer" less that of the best span; infinite where there is no span."""
    no_answer_probability: float
    """0 for a model that always answers."""
    threshold: float
    """The best span is the answer unless `no_answer` is above this."""
    is_shortened: bool
    """True where the end of the question was not read."""

    @property
    def text(self) -> str:
        """The answer; empty where the passage has none."""
        return self.answers[0].text if self._is_answered else ""

    @property
    def probability(self) -> float:
        """Of the answer, or of there being none."""
        return self.answers[0].probability if self._is_answered else self.no_answer_probability

    @property
    def _is_answered(self) -> bool:
        return bool(self.answers) and self.no_answer <= self.threshold


class Answerer:
    """A BERT that answers questions with pieces of passages."""

    def __init__(self, model: SpanHead, tokenizer: Tokenizer, settings: AnswererSettings) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.settings = settings

    def check(self, question: Question) -> None:
        """ValueError for a question that `answer` would refuse."""
        check_tokens(question, self.tokenizer.encode(question.question))

    def answer(self, questions: Sequence[Question], *, num_best: int = 1) -> list[Answered]:
        """What the model says to each question, with its `num_best` best answers.

        A passage of any length is read; of a question longer than the settings say only the beginning counts.
        ValueError names the id of a question without a token.
        """
        asked = [Question(one.id, one.question, one.passage, is_labelled=False) for one in questions]
        examples = question_examples(asked, self.tokenizer, self.settings)
        return find_answers(self.model, examples, self.settings, num_best=num_best)


@dataclass
class _Found:
    """What the windows of one question have shown."""

    spans: list[tuple[float, int, int]] = field(default_factory=list)
    """Score, first and last token of the passage."""
    log_total: float = -math.inf
    null_score: float = math.inf
    """The smallest score of [CLS] as first and last token: "no answer" has to win in every window."""


@torch.inference_mode()
def find_answers(
    model: SpanHead, examples: QuestionExamples, settings: AnswererSettings, *, num_best: int
) -> list[Answered]:
    """What a model in evaluation mode says to each question of `examples`, in their order."""
    assert not model.training, "dropout would act in the answers"
    found = [_Found() for _ in examples.passages]
    if not found:
        return []
    device, sizes, windows = next(model.parameters()).device, examples.sizes(0), examples.windows
    for step in in_view(one_pass(sizes, tokens_per_batch=_TOKENS_PER_BATCH), name="answering"):
        batch = examples.collate(step.indices, 0).to(device)
        scores = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        spans = top_spans(
            scores.start,
            scores.end,
            batch.may_begin,
            batch.may_end,
            max_tokens=settings.max_answer_tokens,
            num_best=max(_NUM_SPANS, num_best),
        )
        null_scores = (scores.start[:, 0] + scores.end[:, 0]).tolist()
        for row, window in enumerate(step.indices.tolist()):
            shift = int(windows.start[window]) - examples.passage_at(window)
            _add(found[int(windows.question[window])], spans, row, null_scores[row], shift=shift)
    return [_answered(one, examples, number, settings, num_best=num_best) for number, one in enumerate(found)]


def _add(found: _Found, spans: Spans, row: int, null_score: float, *, shift: int) -> None:
    """Puts the spans of a window to those of the other windows of its question."""
    rows = zip(*(part[row].tolist() for part in (spans.scores, spans.starts, spans.ends)), strict=True)
    found.spans += [(score, first + shift, last + shift) for score, first, last in rows if score > -math.inf]
    found.log_total = float(np.logaddexp(found.log_total, float(spans.log_total[row])))
    found.null_score = min(found.null_score, null_score)


def _answered(
    found: _Found, examples: QuestionExamples, number: int, settings: AnswererSettings, *, num_best: int
) -> Answered:
    passage, total = examples.passages[number], found.log_total
    if settings.unanswerable:
        total = float(np.logaddexp(total, found.null_score))
    answers: dict[str, FoundAnswer] = {}
    # Of equal scores the one that stands first.
    for score, first, last in sorted(found.spans, key=lambda span: (-span[0], span[1], span[2])):
        start, end = passage.characters_of(first, last)
        text = passage.text[start:end]
        answers.setdefault(text, FoundAnswer(text, start, score, math.exp(score - total)))
        if len(answers) == num_best:
            break
    best = next(iter(answers.values()), None)
    return Answered(
        answers=tuple(answers.values()),
        no_answer=found.null_score - best.score if best else math.inf,
        no_answer_probability=math.exp(found.null_score - total) if settings.unanswerable else float(best is None),
        threshold=settings.highest_no_answer,
        is_shortened=bool(examples.is_shortened[number]),
    )


def open_answerer(folder: Path) -> Answerer:
    """The model in a folder, ours or any `BertForQuestionAnswering`, ready to answer.

    A folder without settings is read with those of Devlin et al. (2019), as far as its positions reach, and always
    answers. ValueError names the folder and what is wrong: missing weights, another vocabulary, a setting.
    """
    found = load_model(folder)
    try:
        model = span_head_from_huggingface(found.config, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    tokenizer = load_tokenizer(folder)
    tokenizer.check_fits(model.encoder.config.vocab_size, folder)
    positions = model.encoder.config.max_length
    settings = _settings(folder / SETTINGS, positions)
    if settings.max_length > positions:
        raise ValueError(
            f"{folder / SETTINGS}: max_length: {settings.max_length} is longer than the {positions} positions of the "
            "model"
        )
    return Answerer(model, tokenizer, settings)


def _settings(path: Path, positions: int) -> AnswererSettings:
    if not path.is_file():
        length = min(384, positions)
        question = min(64, length // 4)
        half = (length - question - 3) // 2
        return AnswererSettings(max_length=length, stride=min(128, max(1, half)), max_question_tokens=question)
    try:
        return AnswererSettings.model_validate(read_json(path), strict=True)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error)}") from error
