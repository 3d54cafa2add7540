"""A fault late in a text loses nothing: what can be looked through before is, and what is translated is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.commands import translate as translating
from pipeline.commands.lines import in_groups, written
from pipeline.inference.translator_folder import open_translator
from tests.cli.test_cli import piped, run

LINES = ["the cat", "", "a dog", "the mat", "the door", "the cat " * 40, "cat"]


def test_a_file_with_a_line_that_is_too_long_is_refused_before_anything_is_translated(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n")

    def translate(*arguments: object, **named: object) -> None:
        raise AssertionError("begun")

    monkeypatch.setattr(translating, "translate_lines", translate)
    arguments = ["translate", "--file", str(tmp_path / "in.txt"), "--lines-at-once", "2"]
    for more in ([], ["--output", str(tmp_path / "out.txt")]):
        code, lines, error = run(capsys, *arguments, *more)
        assert (code, lines) == (2, [])
        assert error.startswith(f"error: {tmp_path}/in.txt, line 6: ")
        assert "the model reads at most 31" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]
    with pytest.raises(AssertionError, match="begun"):
        run(capsys, *arguments, "--long", "cut")


def test_of_a_pipe_what_stands_before_a_line_that_is_too_long_is_kept_and_named(
    workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.txt").write_text("as it was\n")
    text = "\n".join(LINES).encode()
    found = piped(workspace, ["translate", "--output", str(tmp_path / "out.txt")], text)
    (kept,) = (path for path in tmp_path.iterdir() if path.name != "out.txt")
    error = found.stderr.decode()
    assert found.returncode == 2 and error.startswith("error: standard input, line 6: ") and error.count("\n") == 1
    assert error.endswith(f"; what was written before is in {kept}\n") and kept.name.endswith(".partial")
    assert (tmp_path / "out.txt").read_text() == "as it was\n"
    model = open_translator(workspace / "models/tiny/translate/transformer")
    assert kept.read_text() == "".join(f"{one.text}\n" for one in model.translate(LINES[:5]))


def test_lines_before_one_that_is_no_text_are_in_groups_before_its_fault() -> None:
    def lines() -> Iterator[str]:
        yield from "abc"
        raise ValueError("line 4: not UTF-8")

    found: list[tuple[int, list[str]]] = []
    with pytest.raises(ValueError, match="line 4: not UTF-8"):
        found.extend(in_groups(lines(), 2, len))
    assert found == [(1, ["a", "b"]), (3, ["c"])]


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), KeyboardInterrupt(), SystemExit(143)])
def test_what_was_written_before_any_exception_is_kept_and_an_empty_file_is_not(
    tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, written(tmp_path / "out.txt") as stream:
        raise error
    assert not list(tmp_path.iterdir()) and not hasattr(caught.value, "__notes__")
    with pytest.raises(type(error)) as caught, written(tmp_path / "out.txt") as stream:
        stream.write("one\n")
        raise error
    (kept,) = tmp_path.iterdir()
    assert kept.read_text() == "one\n" and caught.value.__notes__ == [f"what was written before is in {kept}"]
