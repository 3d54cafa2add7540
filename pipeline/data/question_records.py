"""Questions about passages, with answers that stand in them: the rows of a task of question answering.

A row is {"id", "question", "passage", "answers": [{"text", "start"}], "impossible"}; offsets count characters of the
passage from 0. Rows of a test set without labels have neither "answers" nor "impossible".
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.records import read_rows


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of the passage."""

    text: str
    start: int
    """Place of its first character in the passage."""

    @property
    def end(self) -> int:
        """Place behind its last character."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a passage; its answers say the same in the words of several people, or are one."""

    id: str
    question: str
    passage: str
    answers: tuple[Answer, ...] = ()
    """Empty where the passage does not answer the question, and where nothing is known."""
    is_labelled: bool = True
    """False where it is not known what the answer is."""

    @property
    def is_impossible(self) -> bool:
        """Whether the passage is known not to answer the question."""
        return self.is_labelled and not self.answers

    @property
    def references(self) -> tuple[str, ...]:
        """The texts of the answers."""
        return tuple(answer.text for answer in self.answers)


def check_question(question: Question) -> None:
    """ValueError for an empty text, and for an answer that is not at its offset, with what stands there."""
    for name, text in (("question", question.question), ("passage", question.passage)):
        if not text.strip():
            raise ValueError(f"the {name} is empty")
    for answer in question.answers:
        if not answer.text.strip():
            raise ValueError(f"the answer at {answer.start} is empty")
        if not 0 <= answer.start <= answer.end <= len(question.passage):
            raise ValueError(
                f"the answer {answer.text!r} at {answer.start} is not inside of the passage, "
                f"which has {len(question.passage)} characters"
            )
        there = question.passage[answer.start : answer.end]
        if there != answer.text:
            place = question.passage.find(answer.text)
            hint = f"; it stands at {place}" if place >= 0 else "; it stands nowhere in the passage"
            raise ValueError(f"the answer {answer.text!r} is not at {answer.start}, where {there!r} stands{hint}")


def refuse_twice(ids: Iterable[str], where: object) -> None:
    """ValueError that names an id which more than one question has."""
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(f"{where}: {len(repeated)} id(s) of more than one question, first {repeated[0]!r}")


def write_questions(path: Path, questions: Iterable[Question]) -> int:
    """Writes questions as JSON lines with sorted keys; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as output:
        for question in questions:
            row: dict[str, Any] = {"id": question.id, "question": question.question, "passage": question.passage}
            if question.is_labelled:
                row["answers"] = [{"text": answer.text, "start": answer.start} for answer in question.answers]
                row["impossible"] = question.is_impossible
            output.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count


def read_questions(path: Path) -> tuple[Question, ...]:
    """Reads what `write_questions` wrote; ValueError names the file, the line and what is wrong there."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run the stage prepare")
    questions = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            question = _parse(row)
            check_question(question)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
        questions.append(question)
    if not questions:
        raise ValueError(f"{path}: empty file")
    refuse_twice((question.id for question in questions), path)
    return tuple(questions)


def text_at(row: Any, key: str, what: str) -> str:
    """The text at a key of a JSON object; ValueError names the key, what the object is, and what was found."""
    value = value_at(row, key, what)
    if not isinstance(value, str):
        raise ValueError(f"the key {key!r} of {what} is text, found {_shown(value)}")
    return value


def list_at(row: Any, key: str, what: str) -> list[Any]:
    """The list at a key of a JSON object; ValueError as that of `text_at`."""
    value = value_at(row, key, what)
    if not isinstance(value, list):
        raise ValueError(f"the key {key!r} of {what} is a list, found {_shown(value)}")
    return value


def number_at(row: Any, key: str, what: str) -> int:
    """The whole number at a key of a JSON object; ValueError as that of `text_at`."""
    value = value_at(row, key, what)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"the key {key!r} of {what} is a whole number, found {_shown(value)}")
    return value


def value_at(row: Any, key: str, what: str) -> Any:
    """The value at a key of a JSON object; ValueError where there is no such key, or no object."""
    if not isinstance(row, dict):
        raise ValueError(f"{what} is an object, found {_shown(row)}")
    if key not in row:
        raise ValueError(f"{what} has no key {key!r}; it has {', '.join(sorted(row)) or 'none'}")
    return row[key]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _parse(row: Any) -> Question:
    name, question, passage = (text_at(row, key, "a row") for key in ("id", "question", "passage"))
    if "answers" not in row and "impossible" not in row:
        return Question(name, question, passage, is_labelled=False)
    answers = tuple(
        Answer(text_at(one, "text", "an answer"), number_at(one, "start", "an answer"))
        for one in list_at(row, "answers", "a row")
    )
    impossible = value_at(row, "impossible", "a row")
    if not isinstance(impossible, bool) or impossible == bool(answers):
        raise ValueError(f"impossible: found {_shown(impossible)} with {len(answers)} answer(s)")
    return Question(name, question, passage, answers)
