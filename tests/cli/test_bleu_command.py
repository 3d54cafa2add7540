"""The command bleu prints what the metrics give, with their signatures, and refuses files that do not fit."""

from pathlib import Path
from typing import get_args

import pytest

from pipeline.cli import main
from pipeline.commands.options import PLAIN_WORDS
from pipeline.evaluation.bleu import MosesWords, PlainWords, bleu, bleu_of, chrf, moses_bleu, paired_bootstrap, ter

REFERENCES = ["The cat sat on the mat.", "A dog barks at night, loudly.", "It is raining in the old town today."] * 5
CLOSE = ["The cat sat on a mat.", "a dog barks at night, loudly.", "It is raining in the town today."] * 5
FAR = ["The cat lay there.", "A dog at night.", ""] * 5


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, lines in (("ref", REFERENCES), ("close", CLOSE), ("far", FAR), ("short", CLOSE[:-1]), ("none", [])):
        Path(name).write_text("".join(f"{line}\n" for line in lines))
    Path("holes").write_text("\n".join([*REFERENCES[:3], "  ", *REFERENCES[4:]]))
    Path("odd").write_text("".join(f"{line}\n" for line in CLOSE).replace("cat sat", "cat\u2028sat"))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    code = main(("bleu", "--reference", "ref", *arguments))
    found = capsys.readouterr()
    return code, found.out.split("\n")[:-1], found.err


@pytest.mark.usefixtures("files")
def test_the_scores_of_a_system_are_those_of_the_metrics_with_their_signatures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, lines, _ = run(capsys, "far")
    expected = [
        "far: 15 lines, 5 of them empty",
        *(
            f"  {name:<5} {score.value:6.2f}  {score.signature}"
            for name, score in (
                ("BLEU", bleu(FAR, REFERENCES)),
                ("chrF2", chrf(FAR, REFERENCES)),
                ("TER", ter(FAR, REFERENCES)),
            )
        ),
    ]
    assert (code, lines) == (0, expected)
    assert "tok:13a" in lines[1] and "case:mixed" in lines[1]


@pytest.mark.usefixtures("files")
def test_tokenised_and_lowercase_choose_the_bleu_also_of_the_bootstrap(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines, _ = run(capsys, "close", "far", "--tokenised", "--lowercase", "--resamples", "50", "--seed", "4")
    score = bleu_of(CLOSE, REFERENCES, kind="tokenised", lowercase=True)
    assert lines[1] == f"  BLEU  {score.value:6.2f}  {score.signature}"
    assert "case:lc" in lines[1] and "tok:none" in lines[1] and "case:lc" in lines[2]
    assert score.value > bleu_of(CLOSE, REFERENCES, kind="tokenised", lowercase=False).value
    found = paired_bootstrap(
        CLOSE, FAR, REFERENCES, seed=4, num_resamples=50, kind="tokenised", lowercase=True
    )  # fmt: skip
    far = bleu_of(FAR, REFERENCES, kind="tokenised", lowercase=True)
    assert found.difference == pytest.approx(score.value - far.value)
    assert lines[-1].startswith(
        f"  {found.difference:+.2f}, 95% interval [{found.low:+.2f}, {found.high:+.2f}], p < 0.0200 "
    )
    assert lines[-2] == "BLEU of close less that of far"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("lowercase", [False, True])
def test_the_bleu_of_moses_stands_beside_the_others_and_has_a_bootstrap_of_its_own(
    capsys: pytest.CaptureFixture[str], lowercase: bool
) -> None:
    """The translations have a compound that is half right and a letter of the wrong case: each option counts."""
    references = [line.replace("old", "well-built") for line in REFERENCES]
    close, far = ([line.replace("the town", "the well-made town") for line in lines] for lines in (CLOSE, FAR))
    for name, lines in (("ref", references), ("close", close), ("far", far)):
        Path(name).write_text("".join(f"{line}\n" for line in lines))
    options = ["--moses", "de", "--split-compounds", "--resamples", "50", "--seed", "4"]
    code, found, _ = run(capsys, "close", "far", *options, *(["--lowercase"] if lowercase else []))
    assert code == 0
    plain = bleu(close, references, lowercase=lowercase)
    score = moses_bleu(close, references, language="de", split_compounds=True, lowercase=lowercase)
    assert found[1:5] == [
        f"  BLEU       {plain.value:6.2f}  {plain.signature}",
        f"  Moses BLEU {score.value:6.2f}  {score.signature}",
        *(
            f"  {name:<10} {one.value:6.2f}  {one.signature}"
            for name, one in (("chrF2", chrf(close, references, lowercase=lowercase)), ("TER", ter(close, references)))
        ),
    ]
    assert "tok:13a" in found[1] and "tok:moses-de-compounds-split" in found[2]
    assert all(f"case:{'lc' if lowercase else 'mixed'}" in line for line in found[1:4])
    for language, split, lower in (("de", False, lowercase), ("de", True, not lowercase)):
        other = moses_bleu(close, references, language=language, split_compounds=split, lowercase=lower)
        assert abs(other.value - score.value) > 0.5
    words = MosesWords("de", split_compounds=True)
    of_plain, of_moses = (
        paired_bootstrap(close, far, references, seed=4, num_resamples=50, kind=kind, lowercase=lowercase)
        for kind in ("plain", words)
    )
    of_far = moses_bleu(far, references, language="de", split_compounds=True, lowercase=lowercase)
    assert of_moses.difference == pytest.approx(score.value - of_far.value)
    assert found[-4] == "BLEU of close less that of far" and found[-2] == "Moses BLEU of close less that of far"
    for line, one in ((found[-3], of_plain), (found[-1], of_moses)):
        assert line.startswith(f"  {one.difference:+.2f}, 95% interval [{one.low:+.2f}, {one.high:+.2f}], ")
    assert found[-3] != found[-1]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("words", PLAIN_WORDS)
def test_the_words_of_plain_text_are_those_that_were_asked_for(capsys: pytest.CaptureFixture[str], words: str) -> None:
    code, lines, _ = run(capsys, "close", "--words", words)
    assert code == 0 and f"tok:{words}|" in lines[1]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "parted"),
    [([], True), (["--words", "zh"], True), (["--tokenised"], False), (["--words", "13a"], False)],
)
def test_the_edit_rate_has_the_words_of_bleu_where_there_are_no_spaces(
    capsys: pytest.CaptureFixture[str], options: list[str], parted: bool
) -> None:
    Path("ref").write_text("我喜欢红苹果。\n他不喜欢。\n")
    Path("zh").write_text("我喜红苹果。\n他不喜欢。\n")
    _, lines, _ = run(capsys, "zh", *options)
    rate = f"{100 / 12:6.2f}" if parted else " 50.00"
    assert lines[3].startswith(f"  TER   {rate}  ")
    assert f"asian:{'yes' if parted else 'no'}" in lines[3]


def test_the_command_offers_every_tokenizer_of_plain_text() -> None:
    assert get_args(PlainWords) == PLAIN_WORDS


@pytest.mark.usefixtures("files")
def test_a_system_against_itself_is_not_better(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines, _ = run(capsys, "close", "close", "--resamples", "20")
    assert "+0.00, 95% interval [+0.00, +0.00], p = 1.0000" in lines[-1]
    assert sum(line.startswith("close: ") for line in lines) == 2


@pytest.mark.usefixtures("files")
def test_a_line_separator_inside_of_a_line_makes_no_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "odd")[1][0] == "odd: 15 lines"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["short"], "short has 14 lines, ref has 15"),
        (["close", "--words", "zh", "--tokenised"], "--words tokenises plain text, --tokenised takes text that is"),
        (["close", "short"], "short has 14 lines, ref has 15"),
        (["close", "--reference", "holes"], "holes, line 4: an empty reference"),
        (["none", "--reference", "none"], "none: no lines"),
        (["nowhere"], "nowhere: No such file or directory"),
        (["close", "far", "far"], "one or two systems are scored, found 3"),
        (["close", "far", "--resamples", "0"], "--resamples: found 0, allowed is 1 or more"),
        (["close", "far", "--seed", "-1"], "--seed: found -1, allowed is 0 or more"),
        (["close", "--resamples", "50"], "--resamples is of the bootstrap that compares two systems: found one"),
        (["close", "--seed", "0"], "--seed is of the bootstrap that compares two systems: found one"),
        (
            ["close", "--moses", "xx"],
            "--moses: found 'xx', allowed are the languages that Moses has rules for: as, bn, ca",
        ),
        (["close", "--moses", ""], "--moses: found '', allowed are"),
        (["close", "--split-compounds"], "--split-compounds is for --moses"),
        (
            ["close", "--moses", "de", "--tokenised"],
            "--moses tokenises plain text, --tokenised takes text that is tokenised: found both",
        ),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, lines, error = run(capsys, *arguments)
    assert (code, lines) == (2, [])
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
