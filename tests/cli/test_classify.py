"""What `pipeline classify` says of the folders of other people: classes, several labels, values; and of broken ones."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import pipeline as their_pipeline

from pipeline.artifacts import load_model, read_json, save_model, write_json
from pipeline.inference.mlflow_model import signature
from pipeline.inference.models import Classifier, open_model
from pipeline.inference.requests import answer
from pipeline.models.bert import Bert, BertConfig, Pooler
from pipeline.models.heads import SequenceClassifier
from pipeline.models.huggingface.bert import sequence_classifier_to_huggingface
from pipeline.text.tokenizer_training import train_wordpiece
from tests.cli.conftest import TEXTS as WORDS
from tests.cli.test_cli import run
from tests.folders import save_folder

TEXTS = ["the cat sat", "a dog ran after the cat", "the mat", "the dog sat by the door", "a cat", "on the door a mat"]
LABELS = ("toxic", "insult", "threat", "spam")
MULTI = {"problem_type": "multi_label_classification"}
POSITIONS = 32


def classifier(folder: Path, changes: dict[str, Any], *, labels: tuple[str, ...] = LABELS, bias: float = 0.0) -> Path:
    """A BERT with random weights, whose scores differ from text to text, and `changes` in its config.json."""
    torch.manual_seed(4)
    tokenizer = train_wordpiece(WORDS, vocab_size=80)
    shape = BertConfig(
        vocab_size=tokenizer.vocab_size, d_model=16, num_layers=1, num_heads=2, d_ff=32, max_length=POSITIONS
    )
    model = SequenceClassifier(Bert(shape), Pooler(16), num_labels=len(labels), dropout=0.0)
    # As they come, random weights say the same of every text.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_()
        model.classifier.bias.fill_(bias)
    config, state = sequence_classifier_to_huggingface(model, pad_token_id=tokenizer.pad_id, labels=labels)
    return save_folder(folder, ({**config, **changes}, state), tokenizer)


def opened(folder: Path) -> Classifier:
    model = open_model(folder)
    assert isinstance(model, Classifier)
    return model


def theirs(folder: Path) -> list[dict[str, float]]:
    """What the pipeline of `transformers` says of every output, the highest first."""
    found: Any = their_pipeline("text-classification", model=str(folder), top_k=None)(TEXTS)
    return [{one["label"]: one["score"] for one in row} for row in found]


def test_every_label_above_a_half_has_the_probability_of_transformers(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model", MULTI)
    found = opened(folder).classify(TEXTS)
    for one, row in zip(found, theirs(folder), strict=True):
        expected = {label: score for label, score in row.items() if score > 0.5}
        assert one.labels == tuple(expected)
        assert one.values == pytest.approx(tuple(expected.values()), abs=1e-4)
    assert len({one.labels for one in found}) > 2 and max(len(one.labels) for one in found) > 1


@pytest.mark.parametrize("problem", ["single_label_classification", None])
def test_the_likeliest_class_has_the_probability_of_transformers(problem: str | None, tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model", {"problem_type": problem})
    found = opened(folder).classify(TEXTS)
    for one, row in zip(found, theirs(folder), strict=True):
        assert one.labels == (one.label,) == tuple(row)[:1]
        assert one.value == pytest.approx(row[one.label], abs=1e-4)
    assert len({one.label for one in found}) > 1


@pytest.mark.parametrize("labels", [("rating",), ("joy", "anger", "fear")])
def test_every_value_of_a_regression_is_that_of_transformers(labels: tuple[str, ...], tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model", {"problem_type": "regression"}, labels=labels)
    found = opened(folder).classify(TEXTS)
    for one, row in zip(found, theirs(folder), strict=True):
        assert one.labels == labels
        assert one.values == pytest.approx([row[label] for label in labels], abs=1e-4)
    # Neither probabilities nor shares of one.
    assert any(not 0.0 <= value <= 1.0 for one in found for value in one.values)


def test_a_label_that_stands_alone_is_true_or_not(tmp_path: Path) -> None:
    likely = opened(classifier(tmp_path / "likely", MULTI, labels=("toxic",), bias=20.0))
    assert [one.labels for one in likely.classify(TEXTS)] == [("toxic",)] * len(TEXTS)
    unlikely = opened(classifier(tmp_path / "unlikely", MULTI, labels=("toxic",), bias=-20.0))
    assert [one.labels for one in unlikely.classify(TEXTS)] == [()] * len(TEXTS)


def test_several_labels_stand_in_the_line_of_their_text_and_none_leave_it_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("\n".join([TEXTS[0], "", *TEXTS[1:]]) + "\n")
    folder = classifier(tmp_path / "model", MULTI)
    code, lines, _ = run(capsys, "classify", "--model", str(folder), "--file", str(tmp_path / "in.txt"))
    expected = [
        "\t".join(f"{label}\t{value:.4f}" for label, value in zip(one.labels, one.values, strict=True))
        for one in opened(folder).classify(TEXTS)
    ]
    assert (code, lines) == (0, [expected[0], "", *expected[1:]])
    assert max(line.count("\t") for line in lines) >= 3
    none = classifier(tmp_path / "none", MULTI, bias=-20.0)
    assert run(capsys, "classify", "--model", str(none), "the", "cat")[:2] == (0, [""])


@pytest.mark.parametrize(
    ("changes", "labels", "columns"),
    [
        (MULTI, LABELS, ["labels", "values"]),
        ({"problem_type": "regression"}, LABELS, ["labels", "values"]),
        (MULTI, ("toxic",), ["labels", "values"]),
        ({"problem_type": "regression"}, ("rating",), ["label", "value"]),
        ({}, LABELS, ["label", "value"]),
    ],
)
def test_a_server_answers_with_the_columns_of_the_signature(
    changes: dict[str, Any], labels: tuple[str, ...], columns: list[str], tmp_path: Path
) -> None:
    folder = classifier(tmp_path / "model", changes, labels=labels)
    assert signature(folder).outputs.input_names() == columns
    rows = answer(opened(folder), pd.DataFrame({"text": TEXTS}), {})
    assert list(rows.columns) == columns
    predictions = opened(folder).classify(TEXTS)
    if columns == ["labels", "values"]:
        assert list(zip(rows["labels"], rows["values"], strict=True)) == [
            (list(one.labels), list(one.values)) for one in predictions
        ]
    else:
        assert list(rows["label"]) == [one.label for one in predictions]


def refused(folder: Path, capsys: pytest.CaptureFixture[str], command: str = "classify") -> str:
    """The fault of a folder, as a command names it."""
    code, lines, error = run(capsys, command, "--model", str(folder), "x [MASK]")
    assert (code, lines) == (2, []) and error.startswith(f"error: {folder}")
    return error


@pytest.mark.parametrize(
    ("changes", "labels", "message"),
    [
        (
            {"problem_type": "ranking"},
            LABELS,
            "config.json: problem_type is 'ranking', allowed are single_label_classification, "
            "multi_label_classification, regression",
        ),
        (
            {"problem_type": "single_label_classification"},
            ("toxic",),
            "config.json: problem_type is 'single_label_classification' with one output, allowed are two or more",
        ),
    ],
)
def test_outputs_that_mean_something_else_are_refused(
    changes: dict[str, Any], labels: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = classifier(tmp_path / "model", changes, labels=labels)
    assert refused(folder, capsys) == f"error: {folder}: {message}\n"


def without(folder: Path, target: Path, part: str) -> Path:
    """A copy of a model folder that lacks the parameters whose names begin with `part`."""
    shutil.copytree(folder, target)
    found = load_model(folder)
    state = {name: tensor for name, tensor in found.state.items() if not name.startswith(part)}
    assert len(state) < len(found.state)
    save_model(target, found.config, state)
    return target


@pytest.mark.parametrize(
    ("stage", "command", "part", "message"),
    [
        ("finetune/polarity", "classify", "classifier", "missing classifier.weight (2, 16)"),
        ("finetune/polarity-gpt", "classify", "score", "missing score.weight (2, 16)"),
        ("finetune/polarity-bilstm", "classify", "classifier", "missing classifier.weight (2, 16)"),
        ("finetune/polarity-bilm", "classify", "classifier", "missing classifier.weight (2, 16)"),
        ("pretrain_bert", "fill-mask", "cls.predictions.bias", "missing cls.predictions.bias"),
        ("pretrain_bilm", "score", "head", "missing head."),
    ],
)
def test_a_missing_head_is_named_with_its_folder(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, command: str, part: str, message: str
) -> None:
    folder = without(inside / "models/tiny" / stage, tmp_path / "body", part)
    error = refused(folder, capsys, command)
    assert error.startswith(f"error: {folder}: the weights do not fit the configuration: ") and message in error


def test_a_setting_of_a_network_of_our_own_that_is_not_allowed_is_named_with_its_folder(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(inside / "models/tiny/finetune/polarity-bilstm", folder)
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"model": config["model"] | {"num_layers": 0}})
    message = f"error: {folder}: config.json: num_layers: Input should be greater than 0, found 0\n"
    assert refused(folder, capsys) == message


def test_texts_are_cut_and_counted_at_the_length_that_the_folder_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, long = classifier(tmp_path / "model", {}), "the cat sat on the mat a dog ran after the cat"
    (tmp_path / "in.txt").write_text(f"the cat\n{long}\nthe cat sat on the mat\n")
    command = ["classify", "--model", str(folder), "--file", str(tmp_path / "in.txt")]
    _, whole, error = run(capsys, *command)
    assert error == ""
    path = folder / "tokenizer_config.json"
    write_json(path, read_json(path) | {"model_max_length": 8})
    code, lines, error = run(capsys, *command)
    assert (code, [lines[0], lines[2]]) == (0, [whole[0], whole[2]])
    assert lines[1] == lines[2] != whole[1]
    assert error == (
        "cut: 1 line(s) had more than the 8 tokens that the model reads and were labelled without their ends, "
        "first line 2\n"
    )
    write_json(path, read_json(path) | {"model_max_length": "long"})
    message = "tokenizer_config.json: model_max_length: found 'long', allowed is a number of tokens, 3 or more"
    assert refused(folder, capsys) == f"error: {folder}/{message}\n"


@pytest.mark.parametrize("stage", ["polarity", "polarity-gpt", "polarity-bilstm", "polarity-bilm", "tags"])
def test_every_reader_of_texts_takes_the_length_of_the_folder_or_its_positions(
    inside: Path, tmp_path: Path, stage: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(inside / "models/tiny/finetune" / stage, folder)
    path, positions = folder / "tokenizer_config.json", 64 if stage == "polarity-gpt" else POSITIONS
    for saved, expected in ((12, 12), (int(1e30), positions), (1e30, positions), (positions + 1, positions)):
        write_json(path, read_json(path) | {"model_max_length": saved})
        model: Any = open_model(folder)
        assert model.max_length == expected, saved
