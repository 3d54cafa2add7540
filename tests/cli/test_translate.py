"""The command translate: as many lines as came, in order, whole or named, from a stream of any length."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sacremoses import MosesDetokenizer

from pipeline.cli import main
from pipeline.commands import translate as translating
from pipeline.commands.translate import Tally, Wish, translate_lines
from pipeline.inference.device import CPU
from pipeline.inference.translator import DrawConfig, Translator
from pipeline.inference.translator_folder import open_ensemble, open_translator
from pipeline.text.tokenizer import Tokenizer
from tests.cli.conftest import ROOT, typing

FOLDER = "models/tiny/translate"
WORDS = ["the cat", "a dog ran after the cat", "the door", "the mat", "a dog", "the dog sat by the door", "cat"]
ODD = [
    "the cat\x0bsat\x0con\x1cthe\x1dmat",
    "a\x85dog\u2028ran\u2029after",
    "\x00\x01\x7f the cat",
    "\u0627\u0644\u0642\u0637 \u202e\u0639\u0644\u0649 cat",
    "e\u0301\u0323\u0301 cat \U0001f469\u200d\U0001f680",
    "cat",
    "\u200b",
    "<eos> <pad> cat",
]
"""Signs that some programs take for a line's end, control characters, right-to-left and combining text, and text that
spells special tokens."""


@pytest.fixture
def translator(inside: Path) -> Translator:
    return open_translator(Path(FOLDER, "transformer"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    code = main(("translate", *arguments))
    found = capsys.readouterr()
    return code, found.out.split("\n")[:-1], found.err


def written(path: Path, lines: list[str], *, last: str = "\n") -> str:
    path.write_bytes(("\n".join(lines) + last).encode())
    return str(path)


def wish(**changes: object) -> Wish:
    plain = Wish(num_best=0, draw=None, too_long="refuse", lines_at_once=4, name="in.txt")
    return replace(plain, **changes)  # type: ignore[arg-type]


def streamed(translator: Translator, lines: list[str], one: Wish) -> tuple[list[str], Tally]:
    found: list[str] = []
    tally = Tally()
    translate_lines(translator, lines, one, found.extend, tally=tally)
    return found, tally


@pytest.mark.parametrize("lines_at_once", [1, 3, 100])
def test_each_line_gets_the_translation_that_it_gets_alone_in_its_place_and_empty_lines_stay(
    translator: Translator, lines_at_once: int
) -> None:
    lines = ["", *WORDS[:3], "   ", "", *WORDS[3:], "\u3000"]
    found, _ = streamed(translator, lines, wish(lines_at_once=lines_at_once))
    assert found == [translator.translate([line])[0].text if line.strip() else "" for line in lines]
    assert len(set(found)) > 4


@pytest.mark.parametrize("last", ["\n", ""])
def test_as_many_lines_come_out_as_line_feeds_went_in_whatever_else_is_in_the_lines(
    translator: Translator, tmp_path: Path, last: str
) -> None:
    file = written(tmp_path / "in.txt", ["", *ODD, "", "cat"], last=last)
    output = tmp_path / "out.txt"
    assert main(["translate", "--file", file, "--output", str(output)]) == 0
    lines = output.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    assert lines == [one.text for one in translator.translate_plain(["", *ODD, "", "cat"])]
    assert [number for number, line in enumerate(lines) if not line] == [0, 1 + ODD.index("\u200b"), 1 + len(ODD)]


@pytest.mark.parametrize("kind", ["transformer", "moses"])
@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ("\x00the cat", "the cat"),
        ("the\u200b c\u00adat\ufeff", "the cat"),
        ("the\u2028cat\u0085sat\t", "the cat sat"),
        ("a cafe\u0301", "a caf\u00e9"),
        ("the cat&apos;s door", "the cat's door"),
    ],
)
def test_a_text_is_cleaned_as_the_pairs_of_the_training_were(inside: Path, kind: str, odd: str, plain: str) -> None:
    one = open_translator(Path(FOLDER, kind))
    assert one.translate_plain([odd]) == one.translate_plain([plain]) != one.translate_plain(["cat"])
    listed = wish(num_best=1, lines_at_once=1)
    found, expected = (
        streamed(one, ["cat", text, empty, text], listed)[0] for text, empty in ((odd, "\x00"), (plain, ""))
    )
    assert found == expected and found[2] == "2 |||  ||| 0.0000 ||| 0.0000"


def test_a_model_of_moses_tokens_takes_and_gives_text_as_people_write_it(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_translator(Path(FOLDER, "moses"))
    texts = {
        "The cat's door, the mat.": "the cat 's door , the mat .",
        "": "",
        "\u201cA DOG!\u201d": '" a dog ! "',
        "The mat, the cat.": "the mat , the cat .",
    }
    tokens = [found.text for found in model.translate(list(texts.values()))]
    expected = [MosesDetokenizer("de").detokenize(line.split(" "), unescape=False) for line in tokens]
    assert any(' " ' in line for line in tokens) and not any(' " ' in line for line in expected)
    assert tokens != [found.text for found in model.translate(list(texts))]
    file, folder = written(tmp_path / "in.txt", list(texts)), f"{FOLDER}/moses"
    assert run(capsys, "--model", folder, "--file", file)[:2] == (0, expected)
    assert [found.text for found in model.translate_plain(list(texts))] == expected


def test_a_stream_is_answered_group_by_group_and_never_held_as_a_whole(translator: Translator) -> None:
    taken, answered = [0], [0]

    def lines() -> Iterator[str]:
        for number in range(40):
            # Not more than one group is read beyond what is answered.
            assert number - answered[0] <= 4
            taken[0] += 1
            yield WORDS[number % len(WORDS)]

    def write(found: object) -> None:
        assert isinstance(found, list)
        answered[0] += len(found)

    translate_lines(translator, lines(), wish(lines_at_once=4), write, tally=Tally())
    assert taken == answered == [40]


def test_a_reader_at_the_other_end_of_a_pipe_gets_each_answer_before_it_asks_again(workspace: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "translate", "--lines-at-once", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=workspace, env=environment, text=True
    ) as process:
        assert process.stdin and process.stdout
        for text in ("the cat", "", "a dog"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            assert bool(process.stdout.readline().strip()) == bool(text)
        process.stdin.close()
    assert process.returncode == 0


def test_a_line_that_is_too_long_is_refused_with_file_and_line_and_leaves_no_output(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "in.txt", ["the cat"] * 9 + ["the cat " * 40])
    before = written(tmp_path / "out.txt", ["as it was"])
    code, _, error = run(capsys, "--file", file, "--output", before, "--lines-at-once", "4")
    assert code == 2
    assert error.startswith(f"error: {file}, line 10: ") and "the model reads at most 31" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt"]
    assert Path(before).read_text() == "as it was\n"


def test_a_long_line_may_be_cut_which_is_counted_and_said(translator: Translator) -> None:
    lines = ["cat", "the cat " * 40, "a dog", "the dog " * 50]
    found, tally = streamed(translator, lines, wish(too_long="cut"))
    assert found == [one.text for one in translator.translate(lines, too_long="cut")]
    assert tally.cut == [2, 4]
    (note,) = (one for one in tally.notes(translator) if one.startswith("cut: "))
    assert "2 of 4 lines" in note and "31 tokens" in note and "first line 2" in note


def test_what_was_cut_is_said_on_standard_error_and_is_no_fault(
    translator: Translator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["cat", "the cat " * 40, "a dog", "the dog " * 50]
    whole, long = written(tmp_path / "whole.txt", lines[::2]), written(tmp_path / "long.txt", lines)
    code, found, error = run(capsys, "--file", long, "--long", "cut")
    assert (code, found) == (0, [one.text for one in translator.translate(lines, too_long="cut")])
    assert error.split("\n")[0] == (
        "cut: 2 of 4 lines had more than the 31 tokens that the model reads and were translated without their ends, "
        "first line 2"
    )
    code, _, error = run(capsys, "--file", whole, "--long", "cut")
    assert code == 0 and "cut" not in error


def test_a_translation_that_was_ended_by_its_longest_length_is_counted_and_said(translator: Translator) -> None:
    limited = replace(translator, search=translator.search.model_copy(update={"max_extra_tokens": 0}))
    found = limited.translate(WORDS)
    sources = limited.encode(WORDS, too_long="refuse")
    lengths = [len(one.tokens) + 1 for one in found]
    assert [one.at_limit for one in found] == [a == len(b) for a, b in zip(lengths, sources, strict=True)]
    _, tally = streamed(limited, WORDS, wish())
    assert tally.at_limit == [number for number, one in enumerate(found, start=1) if one.at_limit] != []
    assert f"first line {tally.at_limit[0]}" in tally.notes(limited)[-1]


def test_the_n_best_are_listed_as_moses_does_best_first_with_what_the_search_gave(translator: Translator) -> None:
    four = replace(translator, search=translator.search.model_copy(update={"beam_size": 4}))
    found, _ = streamed(four, ["the cat", "", "a dog"], wish(num_best=3))
    rows = [line.split(" ||| ") for line in found]
    assert [row[0] for row in rows] == ["0"] * 3 + ["1"] + ["2"] * 3
    assert found[3] == "1 |||  ||| 0.0000 ||| 0.0000"
    for number, text in ((0, "the cat"), (2, "a dog")):
        (expected,) = (row for ((_, row),) in four.searched(four.encode([text], too_long="refuse"), num_best=3))
        assert expected[0] == four.translate([text])[0]
        listed = [row[1:] for row in rows if row[0] == str(number)]
        assert [row[0] for row in listed] == [one.text for one in expected]
        # In a batch the last digits may be others.
        for row, one in zip(listed, expected, strict=True):
            assert [float(value) for value in row[1:]] == pytest.approx([one.log_prob, one.score], abs=2e-4)
        assert [one.score for one in expected] == sorted((one.score for one in expected), reverse=True)


def test_the_n_best_are_of_different_texts_of_whose_segmentations_the_best_counts(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = replace(translator, search=translator.search.model_copy(update={"beam_size": 12}))
    (source,) = wide.encode(["the cat"], too_long="refuse")
    ((_, every),) = next(wide.searched([source], num_best=12))
    # As if all of one length spelt the same text.
    monkeypatch.setattr(Tokenizer, "decode", lambda _, ids: "x" * len(ids))
    ((_, found),) = next(wide.searched([source], num_best=3))
    best: dict[int, tuple[int, ...]] = {}
    for one in every:
        best.setdefault(len(one.tokens), one.tokens)
    assert [one.tokens for one in found] == list(best.values())[:3] and len(best) < len(every)


def test_the_search_of_the_command_line_replaces_that_of_the_folder(
    translator: Translator, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, int | float | str | None] = {
        "beam_size": 3,
        "length_penalty": 2.0,
        "stop": "filled",
        "normalisation": "gnmt",
        "max_extra_tokens": 9,
    }
    asked = translating.opened([Path(FOLDER, "transformer")], CPU, changes, batch_tokens=None).search
    assert asked.model_dump() == changes
    nothing: dict[str, int | float | str | None] = dict.fromkeys(changes)
    assert translating.opened([Path(FOLDER, "second")], CPU, nothing, batch_tokens=None).search == translator.search
    update = {"beam_size": 5, "length_penalty": 3.0, "normalisation": "gnmt", "max_extra_tokens": 2}
    search = translator.search.model_copy(update=update)
    (expected,) = replace(translator, search=search).translate(["a dog ran"])
    arguments = ["--beam", "5", "--length-penalty", "3", "--normalisation", "gnmt", "--max-extra-tokens", "2"]
    arguments += ["--n-best", "1", "a dog ran"]
    assert run(capsys, *arguments)[1] == [f"0 ||| {expected.text} ||| {expected.log_prob:.4f} ||| {expected.score:.4f}"]
    assert expected.score != translator.translate(["a dog ran"])[0].score


def test_a_drawn_translation_is_a_function_of_the_seed_and_the_number_of_its_line(translator: Translator) -> None:
    draw = DrawConfig(temperature=1.5, top_k=0, top_p=0.95, seed=7)
    lines = [*WORDS, "", *WORDS]
    found, _ = streamed(translator, lines, wish(draw=draw, lines_at_once=100))
    assert found == streamed(translator, lines, wish(draw=draw, lines_at_once=2))[0]
    assert found[8:] != found[:7], "the same texts on other lines are drawn anew"
    assert streamed(translator, lines[:3], wish(draw=draw))[0] == found[:3]
    assert streamed(translator, lines, wish(draw=draw.model_copy(update={"seed": 8})))[0] != found
    several, _ = streamed(translator, WORDS[:1], wish(draw=draw, num_best=4))
    assert several[0].split(" ||| ")[1] == found[0] and len(set(several)) > 1


def test_an_ensemble_of_a_model_with_itself_translates_as_the_model_with_the_same_scores(
    translator: Translator,
) -> None:
    folder = Path(FOLDER, "transformer")
    together = open_ensemble([folder, folder, folder])
    for one, two in zip(together.translate(WORDS), translator.translate(WORDS), strict=True):
        assert one.tokens == two.tokens
        assert (one.log_prob, one.score) == pytest.approx((two.log_prob, two.score), abs=1e-4)


def test_an_ensemble_of_two_models_gives_each_token_their_mean_probability(inside: Path) -> None:
    together = open_ensemble([Path(FOLDER, "transformer"), Path(FOLDER, "second")])
    (found,) = together.translate(["a dog ran after the cat"])
    (source,) = together.encode(["a dog ran after the cat"], too_long="refuse")
    src, tokens = torch.from_numpy(source)[None], together.tokenizer
    tgt = torch.tensor([[tokens.bos_id, *found.tokens]])
    labels = torch.tensor([*found.tokens, tokens.eos_id])
    probabilities = [
        one.logits(one(src, torch.ones_like(src).bool(), tgt)).softmax(-1)[0]
        for one in (together.model, *together.others)
    ]
    mean = (probabilities[0] + probabilities[1]) / 2
    assert found.log_prob == pytest.approx(mean[range(len(labels)), labels].log().sum().item(), abs=1e-3)
    assert open_translator(Path(FOLDER, "second")).translate(["a dog ran after the cat"])[0].tokens != found.tokens


def test_folders_given_several_times_are_an_ensemble(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [f"{FOLDER}/transformer", f"{FOLDER}/second"]
    (expected,) = open_ensemble([Path(one) for one in folders]).translate(["a dog ran"])
    assert run(capsys, "--model", folders[0], "--model", folders[1], "a dog ran")[1] == [expected.text]


def test_a_signal_to_end_leaves_what_is_translated_beside_the_output_and_says_where(
    workspace: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.txt"
    command = [sys.executable, "-m", "pipeline.cli", "translate", "--lines-at-once", "1", "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=workspace, env=environment
    ) as process:
        assert process.stdin and process.stderr
        process.stdin.write(b"the cat\n")
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size for path in tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [path.name for path in tmp_path.iterdir()] != ["out.txt"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        error = process.stderr.read().decode()
    kept = tmp_path / f"out.txt.{process.pid}.partial"
    assert list(tmp_path.iterdir()) == [kept] and kept.read_text().count("\n") == 1
    assert error == f"what was written before is in {kept}\n"


def test_a_device_is_written_to_and_not_replaced(inside: Path) -> None:
    assert main(["translate", "the cat", "--output", "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()


def test_the_file_behind_a_link_is_replaced_and_may_be_the_input(
    translator: Translator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "in.txt", WORDS)
    (tmp_path / "link.txt").symlink_to("in.txt")
    assert run(capsys, "--file", file, "--output", str(tmp_path / "link.txt"))[0] == 0
    assert (tmp_path / "link.txt").is_symlink()
    assert Path(file).read_text() == "".join(f"{one.text}\n" for one in translator.translate(WORDS))


def test_a_prompt_says_what_is_wrong_with_a_line_and_asks_for_the_next(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typing(monkeypatch, ["the cat", "the cat " * 40, "", "a dog"], prompt="translate> ")
    code, lines, error = run(capsys)
    expected = [translator.translate([text])[0].text for text in ("the cat", "a dog")]
    assert (code, lines[:2]) == (0, expected)
    assert re.match(r"error: standard input, line 2: \d+ tokens, the model reads at most 31", error)


def test_a_bar_is_shown_only_where_it_disturbs_no_translation(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[tuple[bool, int | None]] = []

    def noted(translator: Translator, lines: Iterator[str], *rest: object, **named: object) -> None:
        assert isinstance(named["total"], int | None)
        shown.append((bool(named["is_shown"]), named["total"]))

    def terminals(*, out: bool, error: bool) -> Callable[[], None]:
        monkeypatch.setattr("sys.stdout.isatty", lambda: out)
        monkeypatch.setattr("sys.stderr.isatty", lambda: error)
        return lambda: None

    monkeypatch.setattr("pipeline.commands.translate.translate_lines", noted)
    file, output = written(tmp_path / "in.txt", WORDS, last=""), str(tmp_path / "out.txt")
    for out, error, more in (
        (True, True, []),
        (False, True, []),
        (True, True, ["--output", output]),
        (False, False, []),
    ):
        terminals(out=out, error=error)
        assert run(capsys, "--file", file, *more)[0] == 0
    assert shown == [(False, None), (True, 7), (True, 7), (False, None)]
