"""Fine-tuning on questions about passages: the answer as a span (Devlin et al. 2019, sections 4.2 and 4.3)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.artifacts import read_json
from pipeline.config import Config, TrainingConfig
from pipeline.data.batches import QuestionBatch
from pipeline.data.examples.questions import QuestionExamples, WindowsConfig, check_windows, question_examples
from pipeline.data.preparing.tasks import TASK, TaskName
from pipeline.data.question_records import Question, read_questions
from pipeline.data.records import SPLITS
from pipeline.evaluation.answer_baselines import nearest_sentence
from pipeline.evaluation.qa import best_threshold, no_answer_score, score_answers, score_answers_or_none
from pipeline.inference.answering import SETTINGS, Answered, AnswererSettings, find_answers
from pipeline.models.bert import Bert
from pipeline.models.heads import SpanHead
from pipeline.models.huggingface.bert import span_head_to_huggingface
from pipeline.objectives.likelihood import span_cross_entropy
from pipeline.objectives.terms import LossTerms
from pipeline.stages.finetune_task import Answers, Evaluation, by_split
from pipeline.text.tokenizer import Tokenizer
from pipeline.training.base import StageModule

_NUM_SAMPLES = 20


class QuestionsTask(Config):
    """Questions whose answers stand in their passages; defaults are those of Devlin et al. (2019)."""

    kind: Literal["questions"]
    name: TaskName
    """The task by the name that prepare.yaml gives it."""
    stride: PositiveInt = 128
    """Tokens of the passage from the beginning of a window to that of the next."""
    max_question_tokens: PositiveInt = 64
    """Longest question in tokens; a longer one loses its end, and is counted."""
    max_answer_tokens: PositiveInt = 30
    """Longest answer that is looked for, in tokens."""


class AnswerFinding(StageModule[QuestionBatch]):
    """First and last token of the answer by cross entropy."""

    model: SpanHead

    def objective(self, batch: QuestionBatch) -> tuple[LossTerms, ...]:
        """One loss with windows as targets; every token but padding may be predicted, [CLS] for "not here"."""
        scores = self.model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        return (span_cross_entropy(scores.start, scores.end, batch.starts, batch.ends, allowed=batch.attention_mask),)


@dataclass(frozen=True)
class AnswerTask:
    """Questions with their windows, encoded; splits by name, train and valid among them."""

    questions: Mapping[str, Sequence[Question]]
    examples: Mapping[str, QuestionExamples]
    settings: AnswererSettings
    """How the model is asked; the threshold is still to be chosen."""
    files: Mapping[str, str]
    """The file, or the part of one, that each split was read from."""
    pad_id: int

    @property
    def train(self) -> QuestionExamples:
        """What is learned from."""
        return self.examples["train"]

    @property
    def valid(self) -> QuestionExamples:
        """What the loss is watched on, and the threshold of "no answer" chosen."""
        return self.examples["valid"]

    @property
    def counts(self) -> Mapping[str, Any]:
        """Questions and windows of each split, and what of them the model cannot see or say."""
        examples = self.examples.items()
        return {
            "num_questions": {split: len(questions) for split, questions in self.questions.items()},
            "num_windows": {split: len(one.windows.question) for split, one in examples},
            "num_shortened": {split: one.num_shortened for split, one in examples},
            "num_out_of_reach": {split: one.num_out_of_reach for split, one in examples},
            "num_inexact": {split: one.num_inexact for split, one in examples},
        }

    def network(self, encoder: nn.Module, pooler: nn.Module, *, dropout: float) -> SpanHead:
        """One linear layer on every token; like the class of Hugging Face without pooler and further dropout.

        ValueError for an encoder that is no BERT.
        """
        if not isinstance(encoder, Bert):
            raise ValueError(f"task: questions are answered by BERT alone, found {type(encoder).__name__}")
        return SpanHead(encoder)

    def module(self, model: SpanHead, training: TrainingConfig) -> AnswerFinding:
        """The network with its loss."""
        return AnswerFinding(model, training)

    def export(self, model: SpanHead) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
        """A `BertForQuestionAnswering`."""
        return span_head_to_huggingface(model, pad_token_id=self.pad_id)

    def answer(self, model: SpanHead) -> Answers[Sequence[Answered]]:
        """The best span of every held-out question; the threshold is chosen on valid and never on test."""
        held_out = [split for split in self.questions if split != "train"]
        found = {split: find_answers(model, self.examples[split], self.settings, num_best=1) for split in held_out}
        settings = self._with_threshold(found["valid"])
        return Answers(
            {
                split: [replace(one, threshold=settings.highest_no_answer) for one in answered]
                for split, answered in found.items()
            },
            {SETTINGS: settings.model_dump()},
        )

    def evaluate(self, answers: Answers[Sequence[Answered]]) -> Evaluation:
        """Scores test if its answers are known, otherwise valid."""
        found, settings = answers.by_split, AnswererSettings.model_validate(answers.settings[SETTINGS])
        scored = [split for split in found if is_labelled(self.questions[split])]
        main = "test" if "test" in scored else "valid"
        results = {split: self._score(found[split], split) for split in scored}
        files = dict(one for split in found for one in self._files(split, found[split]).items())
        return Evaluation(
            metrics={
                **by_split(results, main),
                **({"no_answer": _threshold(settings)} if settings.unanswerable else {}),
            },
            samples=[
                {
                    "passage": question.passage,
                    "question": question.question,
                    "answers": list(question.references),
                    "prediction": answered.text,
                }
                for question, answered in zip(
                    self.questions[main][:_NUM_SAMPLES], found[main][:_NUM_SAMPLES], strict=True
                )
            ],
            predictions=files,
        )

    def _with_threshold(self, found: Sequence[Answered]) -> AnswererSettings:
        """The settings with the threshold by which F1 on valid is best; unchanged where every question is answered."""
        if not self.settings.unanswerable:
            return self.settings
        questions = self.questions["valid"]
        has_answer = np.array([bool(question.answers) for question in questions])
        answered = score_answers_or_none(_best_texts(found), [question.references for question in questions]).f1
        best = best_threshold(np.where(has_answer, answered, 0.0), has_answer, _no_answers(found))
        chosen = {"no_answer_threshold": best.threshold, "threshold_chosen_on": f"valid: {self.files['valid']}"}
        return self.settings.model_copy(update=chosen)

    def _score(self, found: Sequence[Answered], split: str) -> dict[str, Any]:
        """The model's scores beside those of answers that nothing was learned for."""
        questions = self.questions[split]
        references = [question.references for question in questions]
        sentences = [nearest_sentence(question.question, question.passage) for question in questions]
        if not self.settings.unanswerable:
            scores = {"score": _best_texts(found), "nearest_sentence": sentences}
            said = {name: asdict(score_answers(texts, references).mean()) for name, texts in scores.items()}
            return {"score": said.pop("score"), "baselines": said}
        score = no_answer_score(_best_texts(found), references, _no_answers(found), threshold=found[0].threshold)
        nothing = [""] * len(questions)
        return {
            "score": asdict(score),
            "baselines": {
                name: asdict(score_answers_or_none(texts, references).mean())
                for name, texts in {"nearest_sentence": sentences, "always_no_answer": nothing}.items()
            },
        }

    def _files(self, split: str, found: Sequence[Answered]) -> dict[str, str]:
        """Files for the official scripts: the answer to each id, empty where the threshold says that there is none.

        Where "no answer" is allowed, also the best piece of each passage, whatever the threshold says, and the scores
        of "no answer": with these two as predictions and `--na-prob-file` the script of SQuAD 2.0 finds our `best_f1`
        and `best_exact`, and with the threshold as `--na-prob-thresh` the other scores too, which the first file alone
        has.
        """
        ids = [question.id for question in self.questions[split]]
        values: dict[str, Iterable[str | float]] = {split: (one.text for one in found)}
        if self.settings.unanswerable:
            values[f"{split}-best"] = _best_texts(found)
            values[f"{split}-no-answer"] = (one.no_answer for one in found)
        return {f"{name}.json": _json(dict(zip(ids, each, strict=True))) for name, each in values.items()}


def open_questions(folder: Path, tokenizer: Tokenizer, task: QuestionsTask, *, max_length: int) -> AnswerTask:
    """Reads and encodes what prepare wrote into `folder`; ValueError names the file and the question of a fault."""
    check_windows(max_length, task.stride, task.max_question_tokens)
    described = read_json(folder / TASK)
    if described.get("kind") != "questions" or not {"unanswerable", "files"} <= described.keys():
        raise ValueError(f"{folder / TASK}: expected a task of the kind questions, found {described}")
    settings = AnswererSettings(
        max_length=max_length,
        stride=task.stride,
        max_question_tokens=task.max_question_tokens,
        max_answer_tokens=task.max_answer_tokens,
        unanswerable=described["unanswerable"],
    )
    paths = {split: folder / f"{split}.jsonl" for split in SPLITS}
    questions: dict[str, Sequence[Question]] = {}
    examples: dict[str, QuestionExamples] = {}
    for split, path in paths.items():
        if split == "test" and not path.is_file():
            continue
        questions[split] = read_questions(path)
        try:
            examples[split] = _encoded(questions[split], tokenizer, settings, may_lack_answers=split == "test")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return AnswerTask(questions, examples, settings, described["files"], tokenizer.pad_id)


def _encoded(
    questions: Sequence[Question], tokenizer: Tokenizer, settings: WindowsConfig, *, may_lack_answers: bool
) -> QuestionExamples:
    unlabelled = [question.id for question in questions if not question.is_labelled]
    if unlabelled and not (may_lack_answers and len(unlabelled) == len(questions)):
        raise ValueError(f"{len(unlabelled)} of {len(questions)} questions have no answers, first {unlabelled[0]!r}")
    examples = question_examples(questions, tokenizer, settings)
    for question, passage in zip(questions, examples.passages, strict=True):
        if not len(passage.ids):
            raise ValueError(f"question {question.id!r}: no token in the passage {question.passage[:60]!r}")
    return examples


def is_labelled(questions: Sequence[Question]) -> bool:
    """Whether it is known what the answers are."""
    return all(question.is_labelled for question in questions)


def _best_texts(found: Sequence[Answered]) -> list[str]:
    return [one.answers[0].text for one in found]


def _no_answers(found: Sequence[Answered]) -> np.ndarray:
    return np.array([one.no_answer for one in found], dtype=np.float64)


def _threshold(settings: AnswererSettings) -> dict[str, Any]:
    return {"threshold": settings.no_answer_threshold, "chosen_on": settings.threshold_chosen_on}


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, indent=1) + "\n"
