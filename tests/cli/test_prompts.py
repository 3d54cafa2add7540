"""At a prompt a line that is refused says why, and the next is asked for; in a file it is named, and none before it is
lost.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.commands.lines import in_place
from tests.cli.conftest import typing
from tests.cli.test_cli import GREEDY, run

LONG = "the cat " * 40
# Good and bad lines in turn, and what is wrong with each that is.
TYPED = {
    "fill-mask": (
        ["the [MASK]", "the cat", LONG + "[MASK]", "a [MASK]"],
        ["expected a text with [MASK]", "tokens, the"],
    ),
    "answer": (["the cat\twho", "the cat", "\t", "the cat\twhat"], ["expected a passage, a tab and a question"]),
    "classify": (["the cat\ta dog", "the cat", "a dog\tthe cat"], ["expected two texts with a tab between them"]),
    "score": (
        ["the cat\tsat", "the cat", f"a\t{LONG}", "a dog\tran"],
        ["expected a request, a tab", "does not fit into"],
    ),
    "generate": (["the cat", LONG, "a dog"], ["tokens, the context of 64"]),
    "chat": (["the cat", LONG, "a dog"], ["tokens, the context of 64"]),
    "similar": (["cat", "cats", "dog"], ["'cats' is not among the 4 words"]),
}
OPTIONS = {"generate": GREEDY, "chat": GREEDY, "classify": ["--pairs"]}


@pytest.mark.parametrize("command", TYPED)
def test_a_prompt_goes_on_behind_a_line_that_is_refused(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    lines, faults = TYPED[command]
    typing(monkeypatch, [lines[0], lines[-1]])
    code, expected, error = run(capsys, command, *OPTIONS.get(command, []))
    assert (code, error) == (0, "") and len(expected) > 2
    typing(monkeypatch, lines)
    code, found, error = run(capsys, command, *OPTIONS.get(command, []))
    assert (code, found) == (0, expected)
    said = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(said) == len(faults)
    for one, fault in zip(said, faults, strict=True):
        assert fault in one


def test_a_prompt_of_tag_goes_on_behind_a_line_that_is_refused(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin(*arguments: object, **named: object) -> Callable[[Sequence[str]], list[str]]:
        def answer(texts: Sequence[str]) -> list[str]:
            if texts[0] == "bad":
                raise ValueError("no word")
            return [f"<{text}>" for text in texts]

        return answer

    monkeypatch.setattr("pipeline.commands.tag.tagging", begin)
    typing(monkeypatch, ["one", "bad", "two"])
    assert run(capsys, "tag") == (0, ["<one>", "<two>", ""], "error: no word\n")


def test_a_bad_line_of_a_file_is_named_and_those_before_it_are_answered(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ["the [MASK] sat", "", "a [MASK]", "[MASK] dog", " "]
    (tmp_path / "in.txt").write_text("\n".join(good) + "\n")
    code, expected, _ = run(capsys, "fill-mask", "--file", str(tmp_path / "in.txt"))
    assert code == 0 and len(expected) == 5
    (tmp_path / "in.txt").write_text("\n".join([*good, "the cat", "the [MASK]", "the mat"]) + "\n")
    code, lines, error = run(capsys, "fill-mask", "--file", str(tmp_path / "in.txt"))
    assert (code, lines) == (2, expected)
    assert error == f"error: {tmp_path}/in.txt, line 6: expected a text with [MASK] in it, found 'the cat'\n"


@pytest.mark.parametrize(("command", "good"), [("classify", "the cat\ta dog"), ("answer", "the cat sat\twho sat")])
def test_lines_before_one_that_has_no_tab_are_answered(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, good: str
) -> None:
    (tmp_path / "in.txt").write_text(f"{good}\n\nthe cat\n{good}\n")
    code, lines, error = run(capsys, command, *OPTIONS.get(command, []), "--file", str(tmp_path / "in.txt"))
    assert code == 2 and len(lines) == 2 and lines[0] and not lines[1]
    assert error.startswith(f"error: {tmp_path}/in.txt, line 3: ")


@pytest.mark.parametrize("bad", range(6))
def test_whichever_line_is_bad_its_own_fault_is_said_and_the_others_are_answered_together(bad: int) -> None:
    lines = ["a", "", "b", "c", "d", "e", "", "f"]
    place = [number for number, line in enumerate(lines) if line][bad]
    answered: list[list[str]] = []

    def answer(texts: Sequence[str]) -> list[str]:
        if lines[place] in texts:
            raise ValueError(f"bad: {lines[place] if texts[-1] == lines[place] else 'of several'}")
        answered.append(list(texts))
        return [text * 2 for text in texts]

    found: list[str] = []
    with pytest.raises(ValueError, match=rf"^in.txt, line {10 + place}: bad: {lines[place]}$"):
        for one in in_place(answer, lines, first=10, name="in.txt"):
            found.append(one)
    assert found == [line * 2 for line in lines[:place]]
    assert bad == 0 or answered[-1] == [line for line in lines[:place] if line]
