"""SQuAD (Rajpurkar et al. 2016) and SQuAD 2.0 (Rajpurkar et al. 2018): files -> questions about passages.

Two layouts are read: the official one, a JSON file of articles, paragraphs and questions, and the flat rows of the data
set of the hub, JSON lines of {"id", "title", "context", "question", "answers": {"text": [..], "answer_start": [..]}}.
Every ValueError names the file and the question, or the place where it stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.artifacts import read_json
from pipeline.config import Config
from pipeline.data.cleaning import order_of
from pipeline.data.question_records import (
    Answer,
    Question,
    check_question,
    list_at,
    number_at,
    refuse_twice,
    text_at,
    value_at,
    write_questions,
)
from pipeline.data.records import read_rows
from pipeline.progress import progress


class SquadSource(Config):
    """Extractive question answering in the layout of SQuAD: .json as published, or .jsonl with the rows of the hub."""

    kind: Literal["squad"]
    source: str
    """Folder below raw/."""
    train: str
    """File of the training set, below the source's folder."""
    valid: str = ""
    """File on which choices are made, such as the threshold of "no answer"; empty: articles of the training set."""
    test: str = ""
    """File on which nothing is chosen; empty for none. Its questions may lack answers."""
    valid_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the articles of the training set that become valid where no file is named for it."""
    unanswerable: bool
    """Whether questions may have no answer in their passage, as in version 2.0."""

    @model_validator(mode="after")
    def _one_origin_of_valid(self) -> "SquadSource":
        if self.valid and "valid_share" in self.model_fields_set:
            raise ValueError("valid_share is for a training set without a file of its own for valid, found both")
        return self


@dataclass(frozen=True)
class _Read:
    """A question and the article in which it stands."""

    question: Question
    article: str


def prepare_squad(config: SquadSource, raw: Path, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes the splits of a task below `out`; returns the counts of each split, and what holds for the whole task.

    No article of the training set lies in both train and valid.
    """
    folder = raw / config.source
    names = {"train": config.train, "valid": config.valid, "test": config.test}
    read = {
        split: read_squad(folder / file, unanswerable=config.unanswerable, may_lack_answers=split == "test")
        for split, file in names.items()
        if file
    }
    if not config.valid:
        read["train"], read["valid"] = _divide(read["train"], config.valid_share, folder / config.train)
        names["valid"] = f"{round(100 * config.valid_share)}% of the articles of {config.train}"
    known = {one.question.passage for one in read["train"]}
    counts: dict[str, Any] = {}
    for split, found in read.items():
        questions = [one.question for one in found]
        write_questions(out / f"{split}.jsonl", questions)
        passages = {question.passage for question in questions}
        counts[split] = {
            "records": len(questions),
            "passages": len(passages),
            "impossible": sum(question.is_impossible for question in questions),
            "unlabelled": sum(not question.is_labelled for question in questions),
        }
        if split != "train":
            counts[split]["passages_also_in_train"] = len(passages & known)
    files = {split: name for split, name in names.items() if name}
    return counts, {"kind": "questions", "unanswerable": config.unanswerable, "files": files}


def read_squad(path: Path, *, unanswerable: bool, may_lack_answers: bool = False) -> list[_Read]:
    """All questions of a file in their order, each with its article.

    ValueError for what `check_question` refuses, a missing key, an id that occurs twice, a question without an answer
    where `unanswerable` is false, and a file without questions.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    rows = _flat_rows(path) if path.suffix == ".jsonl" else _nested_rows(path)
    found = []
    for row in progress(rows, name=f"reading {path.name}", unit="questions"):
        name = row.values.get("id")
        where = f"{row.where}, question {name!r}" if isinstance(name, str) else row.where
        try:
            question = _question(row, may_lack_answers=may_lack_answers)
            check_question(question)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if question.is_impossible and not unanswerable:
            raise ValueError(f"{where}: no answers; `unanswerable: true` allows that, as in version 2.0")
        found.append(_Read(question, row.article))
    if not found:
        raise ValueError(f"{path}: no questions")
    refuse_twice((one.question.id for one in found), path)
    return found


@dataclass(frozen=True)
class _Row:
    """A question as it stands in a file."""

    values: dict[str, Any]
    passage: str
    article: str
    where: str


def _nested_rows(path: Path) -> Iterator[_Row]:
    """{"data": [{"title", "paragraphs": [{"context", "qas": [question, ...]}]}]}."""
    content = read_json(path)
    place = str(path)
    try:
        for number, article in enumerate(list_at(content, "data", "the file"), start=1):
            place = f"{path}, article {number}"
            # A number before the title: two articles of one title stay two.
            title = f"{number} {text_at(article, 'title', 'an article') if 'title' in article else ''}"
            for index, paragraph in enumerate(list_at(article, "paragraphs", "an article"), start=1):
                place = f"{path}, article {number}, paragraph {index}"
                passage = text_at(paragraph, "context", "a paragraph")
                for question in list_at(paragraph, "qas", "a paragraph"):
                    value_at(question, "id", "a question")
                    yield _Row(question, passage, title, str(path))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _flat_rows(path: Path) -> Iterator[_Row]:
    """One question a line."""
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path}:{number}"
        try:
            passage = text_at(row, "context", "a row")
            # A data set without titles: the passage stands for its article.
            article = text_at(row, "title", "a row") if "title" in row else passage
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        yield _Row(row, passage, article, where)


def _question(row: _Row, *, may_lack_answers: bool) -> Question:
    values = row.values
    name, question = (text_at(values, key, "a question") for key in ("id", "question"))
    if may_lack_answers and "answers" not in values:
        return Question(name, question, row.passage, is_labelled=False)
    given = value_at(values, "answers", "a question")
    answers = _columns(given) if isinstance(given, dict) else _objects(list_at(values, "answers", "a question"))
    impossible = values.get("is_impossible", not answers)
    if not isinstance(impossible, bool) or impossible == bool(answers):
        raise ValueError(f"is_impossible is {impossible!r}, but there are {len(answers)} answers")
    return Question(name, question, row.passage, answers)


def _objects(given: list[Any]) -> tuple[Answer, ...]:
    return tuple(
        Answer(text_at(one, "text", "an answer"), number_at(one, "answer_start", "an answer")) for one in given
    )


def _columns(given: dict[str, Any]) -> tuple[Answer, ...]:
    texts, starts = list_at(given, "text", "answers"), list_at(given, "answer_start", "answers")
    if len(texts) != len(starts):
        raise ValueError(f"answers: {len(texts)} texts, but {len(starts)} values of answer_start")
    pairs = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    return _objects(pairs)


def _divide(read: Sequence[_Read], share: float, path: Path) -> tuple[list[_Read], list[_Read]]:
    """Training questions and the questions of `share` of the articles, at least one article on each side."""
    articles = sorted({one.article for one in read}, key=order_of)
    if len(articles) < 2:
        raise ValueError(f"{path}: one article cannot be divided into train and valid; name a file for valid")
    held = set(articles[: min(len(articles) - 1, max(1, round(share * len(articles))))])
    train = [one for one in read if one.article not in held]
    return train, [one for one in read if one.article in held]
