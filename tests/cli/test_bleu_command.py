"""The command bleu prints what the metrics give, with their signatures, and refuses files that do not fit."""

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.evaluation.bleu import bleu, bleu_of, chrf, paired_bootstrap, ter

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
        (["close", "short"], "short has 14 lines, ref has 15"),
        (["close", "--reference", "holes"], "holes, line 4: an empty reference"),
        (["none", "--reference", "none"], "none: no lines"),
        (["nowhere"], "nowhere: No such file or directory"),
        (["close", "far", "far"], "one or two systems are scored, found 3"),
        (["close", "--resamples", "0"], "--resamples: found 0, allowed is 1 or more"),
        (["close", "--seed", "-1"], "--seed: found -1, allowed is 0 or more"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, lines, error = run(capsys, *arguments)
    assert (code, lines) == (2, [])
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
