"""Whether attention can be drawn is said before anything is translated; what has none is noted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from pipeline.cli import main
from pipeline.commands import translate as translating
from pipeline.inference.attention_map import attention_map
from pipeline.inference.translator import Translation, Translator
from pipeline.inference.translator_folder import open_translator, save_translator
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.models.source_attention import AttentionKind
from tests.cli.test_cli import piped, run

FOLDER = "models/tiny/translate"


@pytest.fixture
def no_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where something is translated."""

    def translate(*arguments: object, **named: object) -> None:
        raise AssertionError("begun")

    monkeypatch.setattr(translating, "translate_lines", translate)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many panels each picture has, in place of the picture."""
    numbers: list[int] = []

    def draw(path: Path, panels: list[object], *, name: Path) -> None:
        numbers.append(len(panels))
        path.touch()

    monkeypatch.setattr(translating, "save_attention_picture", draw)
    return numbers


@pytest.fixture
def recurrent(inside: Path, tmp_path: Path) -> Callable[[AttentionKind], str]:
    """The folder of a recurrent model."""

    def made(attention: AttentionKind) -> str:
        one = open_translator(Path(FOLDER, "transformer"))
        shape = RecurrentConfig(
            kind="recurrent",
            cell="gru",
            vocab_size=one.tokenizer.vocab_size,
            d_embedding=8,
            d_hidden=8,
            num_layers=1,
            max_length=32,
            bidirectional=True,
            dropout=0.0,
            attention=attention,
        )
        model = Recurrent(shape).eval()
        with torch.no_grad():
            model.embeddings.output.bias[0] = -10.0  # whatever its weights, no translation is empty
        save_translator(tmp_path / attention, replace(one, model=model))
        return str(tmp_path / attention)

    return made


@pytest.mark.usefixtures("no_translation")
def test_more_lines_with_a_text_than_a_picture_shows_are_refused_before_anything_is_translated(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, file = str(tmp_path / "x.png"), tmp_path / "in.txt"
    file.write_text("\n".join(["the cat", "", "\u200b"] * 17) + "\n")
    code, lines, error = run(capsys, "translate", "--file", str(file), "--attention", picture)
    assert (code, lines) == (2, [])
    assert error == f"error: {picture}: attention is drawn for at most 16 lines, found more\n"
    file.write_text("\n".join(["the cat", "", "\u200b"] * 16) + "\n")
    with pytest.raises(AssertionError, match="begun"):
        run(capsys, "translate", "--file", str(file), "--attention", picture)


def test_a_pipe_is_looked_through_before_it_is_translated_too(workspace: Path, tmp_path: Path) -> None:
    found = piped(workspace, ["translate", "--attention", str(tmp_path / "x.png")], b"the cat\n" * 17)
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr.decode().endswith("attention is drawn for at most 16 lines, found more\n")


def test_a_model_without_attention_is_refused_before_anything_is_translated(
    recurrent: Callable[[AttentionKind], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "x.svg"
    good, bad = recurrent("additive"), recurrent("none")
    assert run(capsys, "translate", "--model", good, "--attention", str(picture), "the cat")[0] == 0
    assert picture.exists()
    for models in ([bad], [good, bad]):
        given = [word for one in models for word in ("--model", one)]
        code, lines, error = run(capsys, "translate", *given, "--attention", str(picture), "the cat")
        assert (code, lines) == (2, [])
        assert error == (
            f"error: {picture}: a model without attention gives its sources no weights, so there is nothing to draw\n"
        )


def test_of_more_lines_at_a_prompt_the_first_are_drawn_which_is_said(
    inside: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    typed = iter(["the cat"] * 18)
    monkeypatch.setattr("pipeline.cli.typed", lambda prompt: typed)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert main(["translate", "--beam", "1", "--attention", str(tmp_path / "x.png")]) == 0
    assert drawn == [16] and caplog.messages == [f"{tmp_path}/x.png: shows the first 16 lines, and not 2 more"]


def test_lines_without_a_translation_are_counted_and_have_no_panel(
    inside: Path, drawn: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = Translator.searched

    def leaving_out(translator: Translator, *arguments: object, **named: object) -> object:
        nothing = Translation(text="", tokens=(), log_prob=-1.0, score=-1.0)
        for finished in searched(translator, *arguments, **named):  # type: ignore[arg-type]
            yield [(place, [nothing] if place in empty else row) for place, row in finished]

    monkeypatch.setattr(Translator, "searched", leaving_out)
    (tmp_path / "in.txt").write_text("the cat\n\na dog\nthe mat\n")
    command = ["translate", "--file", str(tmp_path / "in.txt"), "--attention", str(tmp_path / "x.png")]
    empty = {0, 3}
    code, lines, error = run(capsys, *command)
    assert lines[0] == lines[1] == lines[3] == "" != lines[2]
    assert error.split("\n")[0] == "empty: 2 of 4 lines have a text and no translation, first line 1"
    assert drawn == [1] and code == 0
    empty = {0, 2, 3}
    code, _, error = run(capsys, *command)
    assert code == 2 and drawn == [1]
    assert error.endswith("x.png: no line has a translation, so there is no attention to draw\n")


def test_warnings_of_a_picture_name_the_file_that_was_asked_for(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.report.attention_picture.font_families", lambda text: (["sans-serif"], ["漢"]))
    monkeypatch.setattr("pipeline.report.attention_picture._MOST_PIXELS", 150_000)
    picture = tmp_path / "x.png"
    assert main(["translate", "--attention", str(picture), "the cat sat on the mat"]) == 0
    assert len(caplog.messages) == 2 and all(one.startswith(f"{picture}: ") for one in caplog.messages)
    assert picture.stat().st_size


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_attention_of_each_line_becomes_a_picture(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    (tmp_path / "in.txt").write_text("the cat\n\na $dog$\n")
    picture = tmp_path / f"attention.{suffix}"
    assert run(capsys, "translate", "--file", str(tmp_path / "in.txt"), "--attention", str(picture))[0] == 0
    if suffix == "png":
        assert picture.read_bytes().startswith(b"\x89PNG")
        return
    drawn = ElementTree.fromstring(picture.read_text())
    shown = ["".join(one.itertext()).strip() for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    translator = open_translator(Path(FOLDER, "transformer"))
    expected = []
    for text, translation in zip(("the cat", "a $dog$"), translator.translate(["the cat", "a $dog$"]), strict=True):
        weights = attention_map(translator, text, translation)
        expected += [token.replace("▁", "") or "·" for token in (*weights.src_tokens, *weights.tgt_tokens)]
    assert sorted(shown) == sorted(expected)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}image"))) == 2
