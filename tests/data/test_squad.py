"""Both layouts of SQuAD give the same questions, and every fault names its file and its question."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.data.preparing.squad import SquadSource, read_squad
from pipeline.data.preparing.tasks import prepare_tasks
from pipeline.data.question_records import Answer, Question, read_questions, write_questions

PASSAGE = "Zürich 🏔 lies by a lake. The Limmat leaves it."
"""The mountain is one character, in UTF-8 four bytes."""


def nested() -> dict[str, Any]:
    """Two articles in the official layout, one question without an answer."""
    first = {"id": "q1", "question": "Where does Zürich lie?", "answers": [{"text": "by a lake", "answer_start": 14}]}
    second = {"id": "q2", "question": "What leaves the lake?", "answers": [{"text": "The Limmat", "answer_start": 25}]}
    third = {
        "id": "q3",
        "question": "Who painted it?",
        "is_impossible": True,
        "answers": [],
        "plausible_answers": [{"text": "Monet", "answer_start": 0}],
    }
    return {
        "version": "v2.0",
        "data": [
            {"title": "Zürich", "paragraphs": [{"context": PASSAGE, "qas": [first, second]}]},
            {"title": "Giverny", "paragraphs": [{"context": "Monet had a garden.", "qas": [third]}]},
        ],
    }


def flat(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The same as rows of the hub."""
    return [
        {
            "id": question["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {key: [one[key] for one in question["answers"]] for key in ("text", "answer_start")},
        }
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def written(path: Path, content: Any) -> Path:
    """A JSON file, or JSON lines where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = content if path.suffix == ".jsonl" else [content]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_both_layouts_give_the_same_questions_with_offsets_in_characters(tmp_path: Path) -> None:
    one = read_squad(written(tmp_path / "dev.json", nested()), unanswerable=True)
    two = read_squad(written(tmp_path / "dev.jsonl", flat(nested())), unanswerable=True)
    assert [row.question for row in one] == [row.question for row in two]
    assert one[0].question == Question("q1", "Where does Zürich lie?", PASSAGE, (Answer("by a lake", 14),))
    assert [row.question.is_impossible for row in one] == [False, False, True]
    assert [row.question.references for row in one] == [("by a lake",), ("The Limmat",), ()]


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    questions = [row.question for row in read_squad(written(tmp_path / "dev.json", nested()), unanswerable=True)]
    questions.append(Question("q4", "And this?", "Nobody knows.", is_labelled=False))
    assert write_questions(tmp_path / "valid.jsonl", questions) == 4
    assert read_questions(tmp_path / "valid.jsonl") == tuple(questions)
    row = json.loads((tmp_path / "valid.jsonl").read_text().splitlines()[0])
    assert row["answers"] == [{"text": "by a lake", "start": 14}] and row["impossible"] is False


def prepared(tmp_path: Path, **settings: Any) -> tuple[dict[str, Any], Path]:
    """The counts and the folder of a task."""
    config = SquadSource.model_validate({"kind": "squad", "source": "squad", "unanswerable": True} | settings)
    return prepare_tasks({"squad": config}, tmp_path / "raw", tmp_path / "out")["squad"], tmp_path / "out/squad"


def many(num_articles: int) -> dict[str, Any]:
    """Articles with two questions each."""
    return {
        "data": [
            {
                "title": "same title",
                "paragraphs": [
                    {
                        "context": f"number {i} is here",
                        "qas": [
                            {"id": f"{i}-{j}", "question": "which?", "answers": [{"text": str(i), "answer_start": 7}]}
                            for j in range(2)
                        ],
                    }
                ],
            }
            for i in range(num_articles)
        ]
    }


def test_valid_is_taken_from_train_by_article_and_named_so(tmp_path: Path) -> None:
    written(tmp_path / "raw/squad/train.json", many(20))
    written(tmp_path / "raw/squad/dev.json", nested())
    counts, out = prepared(tmp_path, train="train.json", test="dev.json", valid_share=0.25)
    passages = {split: {q.passage for q in read_questions(out / f"{split}.jsonl")} for split in ("train", "valid")}
    assert not passages["train"] & passages["valid"]
    assert (counts["train"]["records"], counts["valid"]["records"], counts["test"]["records"]) == (30, 10, 3)
    assert counts["valid"]["passages_also_in_train"] == counts["test"]["passages_also_in_train"] == 0
    task = json.loads((out / "task.json").read_text())
    assert (task["kind"], task["unanswerable"]) == ("questions", True)
    assert task["files"] == {"train": "train.json", "valid": "25% of the articles of train.json", "test": "dev.json"}


def test_passages_of_the_training_set_in_another_one_are_counted(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        written(tmp_path / f"raw/squad/{name}.json", nested())
    counts, _ = prepared(tmp_path, train="train.json", valid="dev.json")
    assert counts["valid"] == {
        "records": 3,
        "passages": 2,
        "impossible": 1,
        "unlabelled": 0,
        "passages_also_in_train": 2,
    }


def test_a_test_set_may_lack_answers_and_no_other_split(tmp_path: Path) -> None:
    content = nested()
    for article in content["data"]:
        for question in article["paragraphs"][0]["qas"]:
            del question["answers"]
            question.pop("is_impossible", None)
    written(tmp_path / "raw/squad/bare.json", content)
    written(tmp_path / "raw/squad/train.json", nested())
    counts, out = prepared(tmp_path, train="train.json", test="bare.json")
    assert (counts["test"]["records"], counts["test"]["unlabelled"], counts["test"]["impossible"]) == (3, 3, 0)
    assert not any(question.is_labelled for question in read_questions(out / "test.jsonl"))
    with pytest.raises(ValueError, match=r"bare\.json, question 'q1': a question has no key 'answers'; it has id, que"):
        prepared(tmp_path, train="bare.json")


def _first(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["data"][0]["paragraphs"][0]["qas"][0]
    return found


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an answer somewhere else": (
        lambda c: _first(c)["answers"][0].update(answer_start=13),
        r"question 'q1': the answer 'by a lake' is not at 13, where ' by a lak' stands; it stands at 14",
    ),
    "an answer that stands nowhere": (
        lambda c: _first(c)["answers"][0].update(text="at a lake"),
        r"question 'q1': the answer 'at a lake' is not at 14, where 'by a lake' stands; it stands nowhere in the pass",
    ),
    "an answer behind the end": (
        lambda c: _first(c)["answers"][0].update(answer_start=900),
        r"question 'q1': the answer 'by a lake' at 900 is not inside of the passage, which has 46 characters",
    ),
    "an answer before the beginning": (
        lambda c: _first(c)["answers"][0].update(answer_start=-9),
        r"question 'q1': the answer 'by a lake' at -9 is not inside of the passage",
    ),
    "an offset that is no number": (
        lambda c: _first(c)["answers"][0].update(answer_start="14"),
        r"question 'q1': the key 'answer_start' of an answer is a whole number, found \"14\"",
    ),
    "an empty answer": (
        lambda c: _first(c)["answers"][0].update(text=""),
        r"question 'q1': the answer at 14 is empty",
    ),
    "an answer without its text": (
        lambda c: _first(c)["answers"][0].pop("text"),
        r"question 'q1': an answer has no key 'text'; it has answer_start",
    ),
    "an empty question": (lambda c: _first(c).update(question=" "), r"question 'q1': the question is empty"),
    "a question without text": (
        lambda c: _first(c).pop("question"),
        r"question 'q1': a question has no key 'question'; it has answers, id",
    ),
    "a question without id": (
        lambda c: _first(c).pop("id"),
        r"article 1, paragraph 1: a question has no key 'id'; it has answers, question",
    ),
    "an empty passage": (
        lambda c: c["data"][1]["paragraphs"][0].update(context=" \n"),
        r"question 'q3': the passage is empty",
    ),
    "a paragraph without passage": (
        lambda c: c["data"][1]["paragraphs"][0].pop("context"),
        r"article 2, paragraph 1: a paragraph has no key 'context'; it has qas",
    ),
    "an article without paragraphs": (
        lambda c: c["data"][1].pop("paragraphs"),
        r"article 2: an article has no key 'paragraphs'; it has title",
    ),
    "another JSON": (lambda c: c.pop("data"), r"dev\.json: the file has no key 'data'; it has version"),
    "an id twice": (
        lambda c: _first(c).update(id="q2"),
        r"dev\.json: 1 id\(s\) of more than one question, first 'q2'",
    ),
    "answers to an impossible question": (
        lambda c: _first(c).update(is_impossible=True),
        r"question 'q1': is_impossible is True, but there are 1 answers",
    ),
    "no answers to a possible question": (
        lambda c: _first(c).update(is_impossible=False, answers=[]),
        r"question 'q1': is_impossible is False, but there are 0 answers",
    ),
    "no questions": (lambda c: c.update(data=[]), r"dev\.json: no questions"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_the_file_and_the_question(name: str, tmp_path: Path) -> None:
    spoil, message = FAULTS[name]
    content = nested()
    spoil(content)
    with pytest.raises(ValueError, match=message if "dev" in message else rf"dev\.json.*{message}"):
        read_squad(written(tmp_path / "dev.json", content), unanswerable=True)


def test_a_fault_in_flat_rows_names_line_and_question(tmp_path: Path) -> None:
    rows = flat(nested())
    rows[1]["answers"]["answer_start"] = [24]
    with pytest.raises(ValueError, match=r"dev\.jsonl:2, question 'q2': the answer 'The Limmat' is not at 24, where"):
        read_squad(written(tmp_path / "dev.jsonl", rows), unanswerable=True)
    rows[1]["answers"]["answer_start"] = []
    with pytest.raises(ValueError, match=r"dev\.jsonl:2, question 'q2': answers: 1 texts, but 0 values of answer_sta"):
        read_squad(written(tmp_path / "dev.jsonl", rows), unanswerable=True)
    del rows[1]["context"]
    with pytest.raises(ValueError, match=r"dev\.jsonl:2: a row has no key 'context'; it has answers, id, question, ti"):
        read_squad(written(tmp_path / "dev.jsonl", rows), unanswerable=True)


def test_a_question_without_answer_is_refused_where_every_question_has_one(tmp_path: Path) -> None:
    message = r"question 'q3': no answers; `unanswerable: true` allows that"
    for name, content in (("dev.json", nested()), ("dev.jsonl", flat(nested()))):
        with pytest.raises(ValueError, match=message):
            read_squad(written(tmp_path / name, content), unanswerable=False)


def test_files_that_cannot_be_split_or_are_not_there_are_named(tmp_path: Path) -> None:
    written(tmp_path / "raw/squad/one.json", many(1))
    with pytest.raises(ValueError, match=r"one\.json: one article cannot be divided into train and valid; name a file"):
        prepared(tmp_path, train="one.json")
    with pytest.raises(ValueError, match=r"raw/squad/two\.json: no such file"):
        prepared(tmp_path, train="one.json", valid="two.json")
    with pytest.raises(ValidationError, match="valid_share is for a training set without a file of its own"):
        prepared(tmp_path, train="one.json", valid="one.json", valid_share=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passage": ""}, "the passage is empty"),
        ({"answers": [{"text": "lies", "start": 0}]}, "the answer 'lies' is not at 0, where 'Züri' stands"),
        ({"impossible": True}, r"impossible: found true with 1 answer\(s\)"),
        ({"impossible": "no"}, r'impossible: found "no" with 1 answer\(s\)'),
        ({"answers": {}}, "the key 'answers' of a row is a list, found {}"),
        ({"id": 7}, "the key 'id' of a row is text, found 7"),
    ],
)
def test_a_prepared_row_that_is_wrong_is_named_with_its_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "train.jsonl"
    write_questions(path, [Question(name, "Where?", PASSAGE, (Answer("by", 14),)) for name in ("a", "b")])
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n")
    with pytest.raises(ValueError, match=rf"train\.jsonl:2: {message}"):
        read_questions(path)
    path.write_text(f"{first}\n{first}\n")
    with pytest.raises(ValueError, match=r"train\.jsonl: 1 id\(s\) of more than one question, first 'a'"):
        read_questions(path)
