"""The command answer: questions about passages, as a stream of lines, in order, as many out as in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.artifacts import CONFIG, read_json
from pipeline.commands.lines import in_groups
from pipeline.commands.texts import wrong_kind
from pipeline.data.question_records import Question
from pipeline.inference.answering import Answered, Answerer, AnswererSettings
from pipeline.inference.models import open_model
from pipeline.kinds import kind_of

_LINES_AT_ONCE = 64
_LINE_ENDS = str.maketrans("\t\r\n\v\f\x85\u2028\u2029", " " * 8)


@dataclass(frozen=True)
class AnswerWish:
    """What is wanted of each line."""

    num_best: int
    """Answers of each line, with its number; 0: the best one alone."""
    passage: str
    """The passage of all questions; empty where each line brings its own in front of a tab."""
    name: str
    """What the lines come from, for messages."""

    def __post_init__(self) -> None:
        if self.num_best < 0:
            raise ValueError(f"--n-best: found {self.num_best}, allowed is 1 or more")


def opened(folder: Path, device: torch.device, *, unanswerable: bool, threshold: float | None) -> Answerer:
    """The model of a folder on a device; ValueError where it holds another kind.

    With `unanswerable` it may say that a passage has no answer, whatever its folder says, and it does so where the
    score of that, less that of the best answer, is above the threshold, if one is given. ValueError for a threshold of
    a model that always answers.
    """
    if kind_of(read_json(folder / CONFIG) if folder.is_dir() else {}, folder) != "answerer":
        raise wrong_kind(folder, "a model that answers questions", open_model(folder))
    model = open_model(folder, device)
    assert isinstance(model, Answerer)
    changes: dict[str, bool | float] = {"unanswerable": True} if unanswerable else {}
    if threshold is not None:
        if not (unanswerable or model.settings.unanswerable):
            raise ValueError(
                f"--threshold is for a model that may not answer: {folder} always does but with --unanswerable"
            )
        changes["no_answer_threshold"] = threshold
    settings = AnswererSettings.model_validate(model.settings.model_dump() | changes)
    return Answerer(model.model, model.tokenizer, settings)


def answer_lines(
    model: Answerer, lines: Iterable[str], wish: AnswerWish, write: Callable[[Sequence[str]], None]
) -> list[int]:
    """Answers lines until there are no more, some at once; an empty line stays empty.

    Returns the numbers, from 1, of the lines whose question was too long to be read to its end. ValueError names the
    line that has no tab, or no question; those before it are answered.
    """

    def questions() -> Iterator[Question | None]:
        for question in _questions(lines, wish):
            if question is not None:
                model.check(question)
            yield question

    shortened: list[int] = []
    for first, asked in in_groups(questions(), _LINES_AT_ONCE, _num_characters):
        filled = [question for question in asked if question is not None]
        found = iter(model.answer(filled, num_best=max(1, wish.num_best)))
        written = []
        for number, question in enumerate(asked, start=first):
            one = None if question is None else next(found)
            written += _form(number - 1, one, wish)
            if one is not None and one.is_shortened:
                shortened.append(number)
        write(written)
    return shortened


def note_on(shortened: Sequence[int], model: Answerer) -> str:
    """A sentence on the lines that `answer_lines` returned; empty where there were none."""
    if not shortened:
        return ""
    longest = model.settings.max_question_tokens
    return (
        f"cut: {len(shortened)} question(s) had more than the {longest} tokens that the model reads of a question and "
        f"were answered without their ends, first line {shortened[0]}"
    )


def _questions(lines: Iterable[str], wish: AnswerWish) -> Iterator[Question | None]:
    """The question of each line, None for an empty line; ValueError names the first that has none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            yield None
            continue
        where = f"{wish.name}, line {number}"
        passage, question = wish.passage, line
        if not wish.passage:
            # The last tab: a passage may hold some of its own.
            passage, tab, question = line.rpartition("\t")
            if not tab:
                raise ValueError(f"{where}: expected a passage, a tab and a question, found {line[:60]!r}")
        if not question.strip():
            raise ValueError(f"{where}: the question is empty")
        yield Question(where, question, passage, is_labelled=False)


def _num_characters(question: Question | None) -> int:
    return 0 if question is None else len(question.passage) + len(question.question)


def _form(number: int, found: Answered | None, wish: AnswerWish) -> list[str]:
    """The output of a line: the answer, a tab and its probability, empty where the passage has no answer.

    With `num_best`: `number ||| answer ||| probability ||| score` for each answer, the answer of the line first; an
    empty one is "no answer".
    """
    if not wish.num_best:
        return ["" if found is None or not found.text else f"{on_one_line(found.text)}\t{found.probability:.4f}"]
    if found is None or not found.answers:
        return [f"{number} |||  ||| 1.0000 ||| 0.0000"]
    rows = [(one.text, one.probability, one.score) for one in found.answers]
    if found.no_answer_probability > 0.0:
        nothing = ("", found.no_answer_probability, found.no_answer + found.answers[0].score)
        # The threshold says which comes first, probabilities say where it stands among the others.
        first = 0 if not found.text else 1 + sum(one.probability >= nothing[1] for one in found.answers[1:])
        rows.insert(first, nothing)
    return [f"{number} ||| {on_one_line(text)} ||| {p:.4f} ||| {score:.4f}" for text, p, score in rows[: wish.num_best]]


def on_one_line(text: str) -> str:
    """An answer with a space for every tab and line break in it."""
    return text.translate(_LINE_ENDS)
