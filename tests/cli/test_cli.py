"""The commands keep order and empty lines, agree with the models, and end every fault in one line and exit code 2."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from pipeline.artifacts import write_json
from pipeline.cli import main
from pipeline.commands.options import MODELS
from pipeline.inference.generation import GreedyConfig, SamplingConfig
from pipeline.inference.models import Classifier, Generator, Scorer, Turn, open_model
from pipeline.inference.translator import Translator
from pipeline.inference.word_models import GapFiller
from pipeline.report.table import BEGIN, END
from tests.cli.conftest import ROOT

GREEDY = ["--temperature", "0", "--max-new-tokens", "5"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, lines of output, and what was written to standard error."""
    code = main(arguments)
    found = capsys.readouterr()
    return code, found.out.split("\n")[:-1], found.err


def piped(
    workspace: Path, arguments: Sequence[str], text: bytes, *, head: int = 0
) -> "subprocess.CompletedProcess[bytes]":
    """The command as a process of its own behind a pipe; with `head`, its reader leaves after so many lines."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if not head:
        return subprocess.run(command, input=text, capture_output=True, cwd=workspace, env=environment)
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=workspace,
        env=environment,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(text)
    process.stdin.close()
    lines = b"".join(process.stdout.readline() for _ in range(head))
    process.stdout.close()
    with process.stderr:
        error = process.stderr.read()
    return subprocess.CompletedProcess(command, process.wait(120), lines, error)


def test_lines_of_a_file_are_answered_in_order_and_empty_lines_stay_empty(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["the cat", "", "a dog ran", "   ", "the mat"]
    (tmp_path / "in.txt").write_text("\n".join(texts) + "\n")
    code, lines, _ = run(capsys, "classify", "--file", str(tmp_path / "in.txt"))
    model = open_model(inside / "models/tiny/finetune/polarity")
    assert isinstance(model, Classifier)
    expected = [f"{one.label}\t{one.value:.4f}" for one in model.classify([texts[0], texts[2], texts[4]])]
    assert (code, lines) == (0, [expected[0], "", expected[1], "", expected[2]])


@pytest.mark.parametrize("name", ["polarity-bilstm", "polarity-bilm", "polarity-gpt"])
def test_classify_takes_the_folder_of_any_network(
    inside: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:  # fmt: skip
    folder = inside / "models/tiny/finetune" / name
    model = open_model(folder)
    assert isinstance(model, Classifier)
    (found,) = model.classify(["the cat sat"])
    expected = f"{found.label}\t{found.value:.4f}"
    assert run(capsys, "classify", "--model", str(folder), "the", "cat", "sat")[:2] == (0, [expected])


def test_pairs_are_two_arguments_or_two_columns(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model(inside / "models/tiny/finetune/polarity")
    assert isinstance(model, Classifier)
    pairs = [("the cat", "a dog ran"), ("the mat", ""), ("a dog", "the cat sat on the mat")]
    found = model.classify([one for one, _ in pairs], [other for _, other in pairs])
    expected = [f"{one.label}\t{one.value:.4f}" for one in found]
    assert len({one.value for one in found}) == 3
    assert found[0].value != model.classify(["the cat a dog ran"])[0].value
    assert run(capsys, "classify", "--pairs", *pairs[0])[:2] == (0, expected[:1])
    (tmp_path / "in.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in [*pairs[:1], ("", ""), *pairs[1:]]))
    code, lines, _ = run(capsys, "classify", "--pairs", "--file", str(tmp_path / "in.tsv"))
    assert (code, lines) == (0, [expected[0], "", *expected[1:]])
    (tmp_path / "in.tsv").write_text("the cat\ta dog\nthe cat\n")
    code, _, error = run(capsys, "classify", "--pairs", "--file", str(tmp_path / "in.tsv"))
    assert code == 2 and "in.tsv, line 2: expected two texts with a tab between them, found 1: 'the cat'" in error
    code, _, error = run(capsys, "classify", "--pairs", "the cat")
    assert (code, error) == (2, "error: --pairs: expected two texts, each one argument, found 1\n")


def test_a_text_that_is_too_long_is_labelled_by_its_beginning_and_counted(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("the cat\n" + "the cat " * 99 + "\n" + "a dog " * 99 + "\n")
    code, lines, error = run(capsys, "classify", "--file", str(tmp_path / "in.txt"))
    assert (code, len(lines)) == (0, 3)
    assert error == (
        "cut: 2 line(s) had more than the 32 tokens that the model reads and were labelled without their ends, "
        "first line 2\n"
    )
    assert run(capsys, "classify", "the cat " * 60)[1] == [lines[1]]


def test_a_label_does_not_depend_on_what_is_labelled_beside_it(inside: Path) -> None:
    model = open_model(inside / "models/tiny/finetune/polarity")
    assert isinstance(model, Classifier)
    texts = [" ".join((["the", "cat", "sat", "dog", "mat"] * 6)[i % 4 : i % 4 + 1 + i % 23]) for i in range(300)]
    alone = [model.classify([text])[0].value for text in texts[:40]]
    before = torch.get_num_threads()
    for num_threads in (1, 3):
        torch.set_num_threads(num_threads)
        together = [one.value for one in model.classify(texts)]
        torch.set_num_threads(before)
        assert together[:40] == pytest.approx(alone, rel=1e-5)
    assert len(set(alone)) > 20 and model.classify([]) == []


def test_words_of_the_command_line_are_one_text(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = open_model(inside / "models/tiny/translate/transformer")
    assert isinstance(model, Translator)
    (found,) = model.translate(["the cat sat"])
    assert run(capsys, "translate", "the", "cat", "sat")[:2] == (0, [found.text])


def test_generate_continues_and_takes_another_model_folder(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = open_model(inside / "models/tiny/dpo")
    assert isinstance(model, Generator)
    expected = model.extend(["the cat"], GreedyConfig(kind="greedy", max_new_tokens=5))
    code, lines, _ = run(capsys, "generate", "--model", "models/tiny/dpo", *GREEDY, "the cat")
    assert (code, "\n".join(lines)) == (0, expected[0])


def test_generate_draws_by_its_options(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = open_model(inside / "models/tiny/pretrain_gpt")
    assert isinstance(model, Generator)
    drawing = {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 3}
    given = [word for name, value in drawing.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    for options, changes in ((given, drawing), ([], {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "seed": 0})):
        expected = model.extend(
            ["the cat"], SamplingConfig.model_validate({"kind": "sampling", "max_new_tokens": 5} | changes)
        )
        found = run(capsys, "generate", *options, "--max-new-tokens", "5", "the cat")
        assert (found[0], "\n".join(found[1])) == (0, expected[0])


def test_chat_remembers_what_was_said(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    (tmp_path / "in.txt").write_text("the cat\na dog\n")
    _, lines, _ = run(capsys, "chat", *GREEDY, "--file", str(tmp_path / "in.txt"))
    model = open_model(inside / "models/tiny/dpo")
    assert isinstance(model, Generator)
    greedy = GreedyConfig(kind="greedy", max_new_tokens=5)
    first = [Turn("user", "the cat")]
    (reply,) = model.answer([first], greedy)
    (second,) = model.answer([[*first, Turn("assistant", reply), Turn("user", "a dog")]], greedy)
    assert lines == [" ".join(one.splitlines()) for one in (reply, second)]


def test_score_reads_request_and_answer_apart_by_a_tab(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("the cat\tsat\n")
    model = open_model(inside / "models/tiny/reward")
    assert isinstance(model, Scorer)
    (reward,) = model.score([[Turn("user", "the cat"), Turn("assistant", "sat")]])
    assert run(capsys, "score", "--file", str(tmp_path / "in.txt"))[:2] == (0, [f"{reward:.4f}"])
    code, _, error = run(capsys, "score", "the cat sat")
    assert (code, error) == (2, "error: expected a request, a tab and an answer, found 'the cat sat'\n")


def test_gaps_are_filled_or_their_candidates_are_listed(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = open_model(inside / "models/tiny/pretrain_bert")
    assert isinstance(model, GapFiller)
    (found,) = model.fill(["the [MASK] sat on [MASK]"], num_candidates=2)
    code, lines, _ = run(capsys, "fill-mask", "the", "[MASK]", "sat", "on", "[MASK]")
    assert (code, lines) == (0, [f"{found.text}\t{found.probability:.4f}"])
    code, lines, _ = run(capsys, "fill-mask", "--num", "2", "the [MASK] sat on [MASK]")
    gaps = [", ".join(f"{token} {value:.4f}" for token, value in gap) for gap in found.candidates]
    assert (code, lines) == (0, [" | ".join(gaps)])
    code, _, error = run(capsys, "fill-mask", "--num", "-1", "the [MASK]")
    assert (code, error) == (2, "error: --num: found -1, allowed is 0 or more\n")


def test_similar_finds_the_nearest_words_by_cosine(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # cat (1, 0): dog (1, 0.1) has the cosine 0.995, mat (0.5, 0.5) 0.707, door (0, 1) 0.
    assert run(capsys, "similar", "--num", "2", "Cat")[:2] == (0, ["dog 1.00, mat 0.71"])
    assert run(capsys, "similar", "--num", "1", "cat", "dog")[:2] == (0, ["dog 1.00", "cat 1.00"])
    code, _, error = run(capsys, "similar", "cats")
    assert (code, error) == (2, "error: 'cats' is not among the 4 words; did you mean 'cat'?\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["translate", "--model", "models/tiny/reward", "x"], "expected a translation model, this folder holds a rewa"),
        (["classify", "--model", "models/tiny/pretrain_bilm", "x"], "this folder holds a bidirectional language model"),
        (["classify", "--model", "nowhere", "x"], "nowhere: no such folder; name a model folder with --model"),
        (["similar", "--model", "nowhere", "x"], "nowhere: no such folder; name a model folder with --model"),
        (["classify", "--file", "nowhere.txt"], "nowhere.txt: No such file or directory"),
        (
            ["classify", "--profile", "tiny", "--model", "models/tiny/finetune/polarity", "x"],
            "--profile looks for the model of a profile, --model names its folder: found both",
        ),
        (["classify", "--profile", "big", "x"], "profile 'big': no folder conf/big; known are cpu, paper, tiny"),
        (["generate", "--max-new-tokens", "0", "x"], "max_new_tokens: Input should be greater than 0, found 0"),
        (["generate", "--max-new-tokens", "99", "x"], "max_new_tokens: found 99"),
        (["generate", *GREEDY, "--top-k", "0", "x"], "--top-k is for draws: found --temperature 0, which takes the"),
        (["chat", *GREEDY, "--seed", "1", "x"], "--seed is for draws: found --temperature 0, which takes the"),
        (["generate", "--top-p", "0", "x"], "top_p: Input should be greater than 0, found 0.0"),
        (["generate", *GREEDY, "q" * 59], "a text has 60 tokens, the context of 64 leaves 59 beside max_new_tokens 5"),
        (["chat", *GREEDY, "q" * 57], "a text has 60 tokens, the context of 64 leaves 59 beside max_new_tokens 5"),
        (["translate", "the cat " * 40], "the model reads at most 31: 'the cat the cat"),
        (["classify", "the \udcff cat"], "an argument is not UTF-8: 'the \\udcff cat'"),
        (["results"], "reports/tiny/metrics.json: no report yet; make it with: dvc repro"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(
    inside: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, lines, error = run(capsys, *arguments)
    assert (code, lines) == (2, [])
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_outside_the_repository_the_message_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, "classify", "x")
    assert (code, error) == (2, "error: conf/profile.yaml: no such file; run this in the root of the repository\n")


def test_a_pipe_of_many_lines_is_answered_and_a_line_that_is_no_text_is_named(workspace: Path) -> None:
    good = "\ufeffthe cat\r\n".encode() + b"\n" + b"a dog\n" * 1100
    found = piped(workspace, ["classify"], good + b"\xff\xfe\n")
    lines = found.stdout.decode().split("\n")
    assert found.returncode == 2
    assert found.stderr.decode() == "error: standard input, line 1103: not UTF-8\n"
    assert lines[1] == "" and len(set(lines[2:1102])) == 1 and len(lines) == 1102 + 1


def test_a_reader_that_leaves_ends_the_command_in_silence(workspace: Path) -> None:
    found = piped(workspace, ["classify"], b"the cat\n" * 3000, head=1)
    assert found.stdout.startswith((b"negative\t", b"positive\t"))
    assert (found.returncode, found.stderr) == (0, b"")


def test_results_are_printed_and_written_into_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/tiny").mkdir(parents=True)
    (tmp_path / "conf/profile.yaml").write_text("profile: tiny\n")
    row = {
        "title": "Reward model",
        "measure": "accuracy",
        "command": "dvc repro reward",
        "order": 0,
        "shown": {"value": "74.0%", "baselines": "judge 69.0%", "floor": "≥ 70.0%", "verdict": "reached"},
    }
    write_json(tmp_path / "reports/tiny/metrics.json", {"results": {"reward_accuracy": row}})
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    code, lines, _ = run(capsys, "results", "--readme")
    assert code == 0
    assert lines[2] == "Reward model: accuracy  74.0%  judge 69.0%  ≥ 70.0%, reached"
    assert lines[-1] == "Report: reports/tiny/index.html"
    assert "| Reward model: accuracy | 74.0% | judge 69.0% |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("command", [*sorted(MODELS), "answer", "translate"])
def test_a_text_beside_a_file_is_refused_since_one_of_them_would_not_be_read(
    command: str, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.txt").write_text("the cat\n")
    code, lines, error = run(capsys, command, "--file", "in.txt", "the cat")
    assert (code, lines) == (2, [])
    assert error == "error: texts come as arguments or from --file, found both\n"
