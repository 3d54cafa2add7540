"""`pipeline tag` finds what the model finds, keeps every line, and says of a folder what does not fit."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.artifacts import load_model, publish, read_json, save_model, write_json
from pipeline.inference.models import open_model
from pipeline.inference.tagger import Tagger
from pipeline.text.tags import Entity, read_tags, write_tags
from pipeline.text.tokenizer_training import train_wordpiece
from tests.cli.conftest import TAGS, TEXTS
from tests.cli.test_cli import piped, run

FOLDER = "models/tiny/finetune/tags"
SENTENCES = [text.split() for text in TEXTS[:3]]


def tagger(folder: str | Path = FOLDER) -> Tagger:
    model = open_model(Path(folder))
    assert isinstance(model, Tagger)
    return model


@torch.no_grad()
def probabilities(model: Tagger, words: Sequence[str]) -> np.ndarray:
    """Of the tags of each word of a short sentence, one word at a time."""
    pieces = [model.tokenizer.encode(word) for word in words]
    ids = [model.tokenizer.id_of("cls"), *(i for one in pieces for i in one), model.tokenizer.id_of("sep")]
    firsts = 1 + np.cumsum([0, *(len(one) for one in pieces[:-1])])
    input_ids = torch.tensor([ids])
    scores = model.model(input_ids, torch.zeros_like(input_ids), torch.ones_like(input_ids, dtype=torch.bool))
    found: np.ndarray = scores[0, firsts].softmax(-1).numpy()
    return found


def test_entities_are_those_of_the_likeliest_tags_and_their_probability_is_the_product(inside: Path) -> None:
    model = tagger()
    num_entities = 0
    for words, found in zip(SENTENCES, model.tag(SENTENCES), strict=True):
        rows = probabilities(model, words)
        tags = [TAGS[number] for number in rows.argmax(-1)]
        # Put right as conlleval reads them.
        kinds = [tag[2:] for tag in tags]
        for place, tag in enumerate(tags):
            if tag[0] == "I" and (place == 0 or kinds[place - 1] != kinds[place]):
                tags[place] = f"B-{kinds[place]}"
        assert found.entities == read_tags(tags, "iob2")
        expected = [float(rows.max(-1)[start:stop].prod()) for _, start, stop in found.entities]
        assert found.probabilities == pytest.approx(expected, rel=1e-4)
        num_entities += len(found.entities)
    assert num_entities > 2


def test_what_is_found_does_not_depend_on_the_other_sentences_and_empty_ones_have_nothing(inside: Path) -> None:
    model = tagger()
    together = model.tag([[], *SENTENCES, []])
    assert together[0].entities == together[-1].entities == ()
    for words, found in zip(SENTENCES, together[1:-1], strict=True):
        (alone,) = model.tag([words])
        assert alone.entities == found.entities
        assert alone.probabilities == pytest.approx(found.probabilities, rel=1e-4)
    assert model.tag([]) == [] and model.tag([[]])[0].entities == ()


def test_every_word_of_a_text_longer_than_the_model_is_looked_at(inside: Path) -> None:
    model = tagger()
    words = [word for sentence in SENTENCES for word in sentence] * 20
    (found,) = model.tag([words])
    assert len(model.tokenizer.encode(" ".join(words))) > 10 * model.model.encoder.config.max_length
    assert found.entities[-1].stop > len(words) - 10


def test_entities_in_a_text_are_where_they_stand_in_it(inside: Path) -> None:
    model = tagger()
    text = "  the cat\u00a0sat,  on (the mat). "
    (found,) = model.find([text])
    assert found
    for one in found:
        assert text[one.start : one.stop] == one.text == one.text.strip()
    (tagged,) = model.tag([["the", "cat", "sat", ",", "on", "(", "the", "mat", ")", "."]])
    assert [one.kind for one in found] == [one.kind for one in tagged.entities]
    (tokenised,) = model.find([text], tokenised=True)
    (expected,) = model.tag([["the", "cat", "sat,", "on", "(the", "mat)."]])
    assert [one.kind for one in tokenised] == [one.kind for one in expected.entities]


def test_each_text_is_shown_with_brackets_around_its_entities(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("\n".join([TEXTS[0], "", "  ", TEXTS[1]]) + "\n")
    code, lines, error = run(capsys, "tag", "--file", str(tmp_path / "in.txt"))
    model = tagger()
    assert (code, error, len(lines), lines[1:3]) == (0, "", 4, ["", ""])
    for text, line in zip((TEXTS[0], TEXTS[1]), (lines[0], lines[3]), strict=True):
        (found,) = model.find([text])
        for one in reversed(found):
            marked = f"[{one.kind} {one.probability:.2f} {one.text}]"
            text = text[: one.start] + marked + text[one.stop :]
        assert line == text
    assert "[" in lines[0] + lines[3]


def test_as_json_each_text_is_a_list_of_its_entities(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (line,), _ = run(capsys, "tag", "--json", *TEXTS[0].split())
    (found,) = tagger().find([TEXTS[0]])
    assert code == 0
    assert json.loads(line) == [
        {
            "type": one.kind,
            "text": one.text,
            "start": one.start,
            "end": one.stop,
            "probability": pytest.approx(one.probability, abs=6e-5),
        }
        for one in found
    ]


CONLL = """-DOCSTART- -X- O

# a comment
the DT O
cat NN B-PER\x20
# DT O

\t
a DT O
dog NN B-PER"""


def test_a_column_file_keeps_every_line_and_gets_the_tags_as_its_last_column(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.conll").write_text(CONLL)
    for scheme in ("iob2", "iob1", "bioes", "bilou"):
        command = ["tag", "--conll", "--comment", "# ", "--file", str(tmp_path / "in.conll"), "--scheme", scheme]
        code, lines, error = run(capsys, *command)
        sentences = (["the", "cat", "#"], ["a", "dog"])
        one, two = (
            write_tags(found.entities, len(words), scheme)
            for words, found in zip(sentences, tagger().tag(sentences), strict=True)
        )
        assert (code, error) == (0, "")
        assert lines == [
            "-DOCSTART- -X- O O",
            "",
            "# a comment",
            f"the DT O {one[0]}",
            f"cat NN B-PER {one[1]}",
            f"# DT O {one[2]}",
            "",
            "\t",
            f"a DT O {two[0]}",
            f"dog NN B-PER {two[1]}",
        ]


def test_words_of_tab_separated_files_may_hold_spaces_and_stand_in_any_column(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.conll").write_text("1\tthe cat\t\n2\tsat\t_\n")
    command = ["tag", "--conll", "--separator", "tab", "--word-column", "2", "--file", str(tmp_path / "in.conll")]
    (found,) = tagger().tag([["the cat", "sat"]])
    tags = write_tags(found.entities, 2, "iob2")
    assert run(capsys, *command)[:2] == (0, [f"1\tthe cat\t\t{tags[0]}", f"2\tsat\t_\t{tags[1]}"])


def test_a_pipe_of_many_sentences_is_tagged_and_a_line_without_its_column_is_named(workspace: Path) -> None:
    sentences = ["the x", "cat x", ""] * 600
    text = "\n".join([*sentences, "dog"]) + "\n"
    found = piped(workspace, ["tag", "--conll"], text.encode())
    lines = found.stdout.decode().split("\n")
    assert (found.returncode, found.stderr) == (0, b"")
    assert len(lines) == 1802 and len(set(lines[:-2])) == 3 and lines[-2].startswith("dog ")
    found = piped(workspace, ["tag", "--conll", "--word-column", "2"], text.encode())
    assert found.returncode == 2
    assert found.stderr.decode() == "error: standard input, line 1801: no column 2, found 1: 'dog'\n"
    # The 600 sentences before it are tagged, though they are no whole number of groups.
    assert len(found.stdout.decode().splitlines()) == 1800


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--conll", "the cat"], "--conll reads a file or a pipe, found texts as arguments"),
        (["--conll", "--json", "--file", "x"], "--json is for running text, --conll for column files: found both"),
        (["--conll", "--tokenised", "--file", "x"], "--tokenised is for running text, --conll for column files"),
        (["--scheme", "iob1", "x"], "--scheme is for --conll"),
        (["--word-column", "1", "x"], "--word-column is for --conll"),
        (["--conll", "--word-column", "0", "--file", "x"], "word_column: Input should be greater than 0, found 0"),
        (["--conll", "--file", "nowhere"], "nowhere: No such file or directory"),
        (["--model", "models/tiny/finetune/polarity", "x"], "expected a tagger, this folder holds a classifier"),
        (["--model", "nowhere", "x"], "nowhere: no such folder; name a model folder with --model"),
    ],
)
def test_a_fault_is_one_line_and_exit_code_2(
    inside: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, lines, error = run(capsys, "tag", *arguments)
    assert (code, lines) == (2, [])
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_tagger_is_not_taken_for_a_classifier(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, "classify", "--model", FOLDER, "x")
    assert code == 2 and "expected a classifier, this folder holds a tagger" in error


@pytest.fixture
def copy(inside: Path, tmp_path: Path) -> Path:
    """A copy of the tagger's folder, to be spoilt."""
    return Path(shutil.copytree(inside / FOLDER, tmp_path / "copy"))


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The fault of a folder, as `pipeline tag` names it."""
    code, lines, error = run(capsys, "tag", "--model", str(folder), "x")
    assert (code, lines) == (2, []) and error.startswith(f"error: {folder}: ")
    return error


def test_a_missing_head_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = load_model(copy)
    body = {name: tensor for name, tensor in found.state.items() if not name.startswith("classifier")}
    with publish(copy.parent / "body") as folder:
        save_model(folder, found.config, body)
        shutil.copy(copy / "tokenizer.json", folder)
        shutil.copy(copy / "tokenizer_config.json", folder)
    error = refused(copy.parent / "body", capsys)
    assert "the weights do not fit the configuration: missing classifier.weight (5, 16)" in error


def test_another_vocabulary_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_wordpiece([" ".join(f"stranger{i}" for i in range(400))] * 9, vocab_size=2000).save(copy)
    assert "the tokenizer does not fit the model: it has " in refused(copy, capsys)


def test_a_number_of_tags_that_is_not_the_heads_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | {"id2label": {"0": "O", "1": "B-PER"}})
    assert "classifier.weight: found (5, 16), expected (2, 16)" in refused(copy, capsys)


def test_plain_labels_are_said_of_every_word(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    labels = ("DET", "NOUN", "VERB", "ADP", "O")
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | {"id2label": dict(enumerate(labels))})
    words = SENTENCES[0]
    rows = probabilities(tagger(copy), words)
    expected = [labels[number] for number in rows.argmax(-1)]
    assert len(set(expected)) > 1
    (tagged,) = tagger(copy).tag([words])
    assert tagged.entities == tuple(Entity(label, place, place + 1) for place, label in enumerate(expected))
    assert tagged.probabilities == pytest.approx(rows.max(-1).tolist(), rel=1e-4)
    shown = [f"[{label} {row.max():.2f} {word}]" for label, row, word in zip(expected, rows, words, strict=True)]
    assert run(capsys, "tag", "--model", str(copy), " ".join(words))[:2] == (0, [" ".join(shown)])
    (tmp_path / "in.conll").write_text("\n".join(words) + "\n")
    code, lines, _ = run(capsys, "tag", "--model", str(copy), "--conll", "--file", str(tmp_path / "in.conll"))
    assert (code, lines) == (0, [f"{word} {label}" for word, label in zip(words, expected, strict=True)])


def test_labels_that_are_no_tags_of_entities_beside_tags_or_have_no_names_are_refused(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | {"id2label": dict(enumerate(("O", "B-PER", "I-PER", "NOUN", "B-LOC")))})
    assert "a tag is O or one of" in refused(copy, capsys) and "found 'NOUN'" in refused(copy, capsys)
    del config["id2label"]
    write_json(copy / "config.json", config)
    assert "config.json: no id2label, so that nobody knows the tags of the model" in refused(copy, capsys)


def test_tags_of_another_scheme_are_read_too(copy: Path) -> None:
    config = read_json(copy / "config.json")
    expected = tagger(copy).tag(SENTENCES)
    names = {"0": "O", "1": "B-PER", "2": "I-PER", "3": "S-LOC", "4": "E-LOC"}
    write_json(copy / "config.json", config | {"id2label": names})
    found = tagger(copy).tag(SENTENCES)
    # Persons are the same; every S is a place of its own.
    for one, other in zip(found, expected, strict=True):
        assert all(isinstance(entity, Entity) for entity in one.entities)
        persons = [entity for entity in one.entities if entity.kind == "PER"]
        assert persons == [entity for entity in other.entities if entity.kind == "PER"]
