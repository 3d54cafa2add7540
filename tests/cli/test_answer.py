"""The command answer: as many lines out as in, answers as they stand in their passages, and every fault in one line."""

from pathlib import Path

import pytest

from pipeline.artifacts import write_json
from pipeline.commands.answer import AnswerWish, answer_lines
from pipeline.data.question_records import Question
from pipeline.inference.answering import SETTINGS, Answerer, open_answerer
from tests.cli.test_cli import piped, run

PASSAGE = "The cat sat, on the Mat. A dog ran\tafter the cat."
QUESTION = "Who sat on the mat?"


def answerer(inside: Path) -> Answerer:
    return open_answerer(inside / "models/tiny/finetune/squad")


def expected(model: Answerer, passage: str, question: str) -> str:
    (found,) = model.answer([Question("x", question, passage, is_labelled=False)])
    text = found.text.replace("\t", " ").replace("\n", " ")
    return f"{text}\t{found.probability:.4f}" if text else ""


@pytest.fixture
def choosy(inside: Path) -> Path:
    """A folder whose model leaves every question unanswered."""
    folder = inside / "models/tiny/finetune/choosy"
    if not folder.exists():
        folder.mkdir()
        for path in (inside / "models/tiny/finetune/squad").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        settings = {"max_length": 32, "stride": 12, "max_question_tokens": 12, "max_answer_tokens": 9}
        write_json(folder / SETTINGS, settings | {"unanswerable": True, "no_answer_threshold": -1e6})
    return folder


def test_lines_are_answered_in_order_and_empty_lines_stay_empty(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{PASSAGE}\t{QUESTION}", "", f"a dog ran\t{QUESTION}", " \t ", f"\t{QUESTION}", f"the door\t{QUESTION}"]
    (tmp_path / "in.tsv").write_text("\n".join(lines) + "\n")
    code, found, _ = run(capsys, "answer", "--file", str(tmp_path / "in.tsv"))
    said = {text: expected(answerer(inside), text, QUESTION) for text in (PASSAGE, "a dog ran", "the door")}
    assert (code, found) == (0, [said[PASSAGE], "", said["a dog ran"], "", "", said["the door"]])
    assert all("\t" in line for line in said.values())


def test_a_passage_and_a_question_are_two_arguments(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = expected(answerer(inside), PASSAGE, QUESTION)
    assert run(capsys, "answer", PASSAGE, QUESTION)[:2] == (0, [said])


def test_questions_about_one_file_are_arguments_or_lines(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passage = PASSAGE + "\n\nThe door.\n" + PASSAGE * 9  # more than the model reads at once
    (tmp_path / "passage.txt").write_text(passage)
    (tmp_path / "questions.txt").write_text(f"{QUESTION}\n\nWho ran?\n")
    given = ["--passage", str(tmp_path / "passage.txt")]
    said = [expected(answerer(inside), passage, question) for question in (QUESTION, "Who ran?")]
    assert run(capsys, "answer", *given, *QUESTION.split())[:2] == (0, said[:1])
    code, lines, _ = run(capsys, "answer", *given, "--file", str(tmp_path / "questions.txt"))
    assert (code, lines) == (0, [said[0], "", said[1]])


def test_where_the_passage_has_no_answer_the_line_is_empty(choosy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "answer", "--model", str(choosy), PASSAGE, QUESTION)[:2] == (0, [""])
    code, lines, _ = run(capsys, "answer", "--model", str(choosy), "--n-best", "3", PASSAGE, QUESTION)
    rows = [line.split(" ||| ") for line in lines]
    assert code == 0 and [len(row) for row in rows] == [4] * 3
    assert rows[0][:2] == ["0", ""] and all(row[1] for row in rows[1:])


def test_a_published_model_says_that_there_is_no_answer_where_it_is_told_that_it_may(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not (inside / "models/tiny/finetune/squad" / SETTINGS).exists()
    model = answerer(inside)
    (always,) = model.answer([Question("x", QUESTION, PASSAGE, is_labelled=False)])
    settings = model.settings.model_copy(update={"unanswerable": True})
    (may,) = Answerer(model.model, model.tokenizer, settings).answer(
        [Question("x", QUESTION, PASSAGE, is_labelled=False)]
    )
    assert always.no_answer_probability == 0.0 < may.no_answer_probability
    for threshold, answered in ((may.no_answer + 0.1, True), (may.no_answer - 0.1, False)):
        given = ["--unanswerable", "--threshold", f"{threshold}", PASSAGE, QUESTION]
        expected = f"{may.answers[0].text}\t{may.answers[0].probability:.4f}" if answered else ""
        assert run(capsys, "answer", *given)[:2] == (0, [expected])
    code, (line,), _ = run(capsys, "answer", "--unanswerable", PASSAGE, QUESTION)
    assert code == 0 and bool(line) == (may.no_answer <= 0.0)


def test_a_threshold_replaces_that_of_the_folder_and_is_refused_where_nothing_has_one(
    choosy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (line,), _ = run(capsys, "answer", "--model", str(choosy), "--threshold", "1e6", PASSAGE, QUESTION)
    assert code == 0 and line
    code, _, error = run(capsys, "answer", "--threshold", "0", PASSAGE, QUESTION)
    assert code == 2 and error == (
        "error: --threshold is for a model that may not answer: models/tiny/finetune/squad always does but with "
        "--unanswerable\n"
    )


def test_the_best_answers_of_a_line_are_numbered_by_their_line(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.tsv").write_text(f"{PASSAGE}\t{QUESTION}\n\na dog ran\t{QUESTION}\n")
    _, lines, _ = run(capsys, "answer", "--n-best", "2", "--file", str(tmp_path / "in.tsv"))
    model = answerer(inside)
    rows = []
    for number, passage in ((0, PASSAGE), (2, "a dog ran")):
        (found,) = model.answer([Question("x", QUESTION, passage, is_labelled=False)], num_best=2)
        rows += [
            f"{number} ||| {one.text.replace(chr(9), ' ')} ||| {one.probability:.4f} ||| {one.score:.4f}"
            for one in found.answers
        ]
    assert lines == [*rows[:2], "1 |||  ||| 1.0000 ||| 0.0000", *rows[2:]]


def test_no_answer_stands_among_the_best_where_its_probability_puts_it(choosy: Path) -> None:
    model = open_answerer(choosy)
    (found,) = model.answer([Question("x", QUESTION, PASSAGE, is_labelled=False)], num_best=1000)
    willing = model.settings.model_copy(update={"no_answer_threshold": 1e6})
    rows: list[str] = []
    wish = AnswerWish(num_best=1000, passage=PASSAGE, name="x")
    answer_lines(Answerer(model.model, model.tokenizer, willing), [QUESTION], wish, rows.extend)
    fields = [row.split(" ||| ") for row in rows]
    assert len(fields) == len(found.answers) + 1
    assert fields[0][1] == found.answers[0].text
    (nothing,) = (row for row in fields if not row[1])
    assert float(nothing[2]) == pytest.approx(found.no_answer_probability, abs=1e-4)
    assert float(nothing[3]) == pytest.approx(found.no_answer + found.answers[0].score, abs=1e-3)
    probabilities = [float(row[2]) for row in fields[1:]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_a_question_that_is_longer_than_the_model_reads_is_cut_and_counted(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = answerer(inside).settings.max_question_tokens
    long = "the cat " * longest
    (tmp_path / "in.tsv").write_text(f"{PASSAGE}\t{QUESTION[:3]}\n{PASSAGE}\t{long}\n\n{PASSAGE}\t{long}\n")
    code, lines, error = run(capsys, "answer", "--file", str(tmp_path / "in.tsv"))
    assert (code, len(lines)) == (0, 4)
    assert lines[1] == lines[3] == expected(answerer(inside), PASSAGE, "the cat " * (longest // 2))
    assert error == (
        f"cut: 2 question(s) had more than the {longest} tokens that the model reads of a question and were answered "
        "without their ends, first line 2\n"
    )


def test_a_pipe_of_many_lines_has_as_many_answers(workspace: Path) -> None:
    lines = "".join(f"the cat sat on the mat {'and ' * (i % 40)}\t{QUESTION}\n" for i in range(150))
    found = piped(workspace, ["answer"], lines.encode() + b"\n")
    assert found.returncode == 0
    answers = found.stdout.decode().split("\n")[:-1]
    assert len(answers) == 151 and answers[150] == "" and all(answers[:150])


def test_what_stands_before_a_faulty_line_is_answered(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = f"{PASSAGE}\t{QUESTION}\n"
    for faulty in ("no tab\n", f"{PASSAGE}\t\u200b\u200b\n"):
        Path("in.tsv").write_text(2 * good + faulty + good)
        code, lines, error = run(capsys, "answer", "--file", "in.tsv")
        assert (code, len(lines)) == (2, 2) and all(lines)
        assert "in.tsv, line 3" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([PASSAGE], "expected a passage and a question, each in quotes, found 1 text(s)"),
        ([PASSAGE, "Who", "sat?"], "expected a passage and a question, each in quotes, found 3 text(s)"),
        ([PASSAGE, " "], "the question is empty"),
        (["", QUESTION], "the passage is empty"),
        ([PASSAGE, "\u200b"], "question 'the text, line 1': no token in the question"),
        (["--file", "in.tsv", PASSAGE, QUESTION], "texts come as arguments or from --file, found both"),
        (["--file", "in.tsv"], "in.tsv, line 1: expected a passage, a tab and a question, found 'no tab'"),
        (["--file", "empty.tsv"], "empty.tsv, line 1: the question is empty"),
        (["--passage", "nowhere.txt", QUESTION], "nowhere.txt: No such file or directory"),
        (["--passage", "nothing.txt", QUESTION], "nothing.txt: empty file"),
        (["--n-best", "-1", PASSAGE, QUESTION], "--n-best: found -1, allowed is 1 or more"),
        (
            ["--model", "models/tiny/finetune/polarity", PASSAGE, QUESTION],
            "models/tiny/finetune/polarity: expected a model that answers questions, this folder holds a classifier",
        ),
        (
            ["--model", "models/tiny/pretrain_bert", PASSAGE, QUESTION],
            "models/tiny/pretrain_bert: expected a model that answers questions, this folder holds a pretrained BERT",
        ),
        (["--model", "nowhere", PASSAGE, QUESTION], "nowhere: no such folder; name a model folder with --model"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(
    inside: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("in.tsv").write_text(f"no tab\n{PASSAGE}\t{QUESTION}\n")
    Path("empty.tsv").write_text(f"{PASSAGE}\t\n")
    Path("nothing.txt").write_text("\n")
    code, lines, error = run(capsys, "answer", *arguments)
    assert (code, lines) == (2, [])
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_another_command_says_what_the_folder_holds(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, "classify", "--model", "models/tiny/finetune/squad", "x")
    message = "models/tiny/finetune/squad: expected a classifier, this folder holds a model that answers questions"
    assert (code, error) == (2, f"error: {message}\n")


def test_a_fault_in_the_middle_of_a_pipe_comes_behind_the_answers_before_it(workspace: Path) -> None:
    found = piped(workspace, ["answer"], f"the cat\t{QUESTION}\n".encode() * 64 + b"no tab\n")
    assert (found.returncode, len(found.stdout.splitlines())) == (2, 64)
    assert found.stderr.decode() == (
        "error: standard input, line 65: expected a passage, a tab and a question, found 'no tab'\n"
    )
