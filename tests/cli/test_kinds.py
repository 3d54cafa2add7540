"""What a folder holds is told by its config.json: the outputs and their names, and which GPT is a reward model."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from pipeline.artifacts import load_model, read_json, write_json
from pipeline.inference.mlflow_model import signature
from pipeline.inference.models import Classifier, Scorer, open_model
from pipeline.kinds import kind_of, num_outputs, output_names
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import RewardModel, SequenceClassifier
from pipeline.models.huggingface.gpt import gpt_classifier_to_huggingface, reward_to_huggingface
from pipeline.models.text_encoders import GPTEncoder, LastTokenPooling
from tests.cli.test_classify import LABELS, TEXTS, classifier, refused, theirs
from tests.parity.hf import save_theirs

SHAPE = GPTConfig(vocab_size=37, d_model=16, num_layers=1, num_heads=2, max_length=8)
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
FOLDER = Path("models/x")


def changed(folder: Path, changes: dict[str, Any], *, without: tuple[str, ...] = ()) -> Path:
    """The folder with another config.json."""
    config = {key: value for key, value in read_json(folder / "config.json").items() if key not in without}
    write_json(folder / "config.json", config | changes)
    return folder


def test_outputs_without_names_are_as_many_as_num_labels_as_in_transformers(tmp_path: Path) -> None:
    folder = changed(
        classifier(tmp_path / "model", {}, labels=LABELS[:3]), {"num_labels": 3}, without=("id2label", "label2id")
    )
    model = open_model(folder)
    assert isinstance(model, Classifier) and model.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    for one, row in zip(model.classify(TEXTS), theirs(folder), strict=True):
        assert one.label == next(iter(row)) and one.value == pytest.approx(row[one.label], abs=1e-4)
    opened: Any = BertForSequenceClassification.from_pretrained(folder)
    assert tuple(opened.config.id2label.values()) == model.labels


def test_without_a_number_of_outputs_there_are_two(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model", {"id2label": None}, labels=LABELS[:2])
    model = open_model(folder)
    assert isinstance(model, Classifier) and model.labels == ("LABEL_0", "LABEL_1")
    assert num_outputs({}) == 2 and num_outputs({"id2label": None, "num_labels": None}) == 2


def test_names_count_where_num_labels_says_another_number_and_stand_by_their_numbers() -> None:
    names = {str(i): f"class-{i}" for i in reversed(range(11))}
    assert output_names({"id2label": names, "num_labels": 2}) == [f"class-{i}" for i in range(11)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, "id2label: found the numbers 1, 2, allowed are 0 to 1, each once"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label: found the numbers 0, 2, allowed are 0 to 1, each once"),
        ({"id2label": {}}, "id2label: found {}, allowed are names by the numbers of the outputs"),
        ({"id2label": ["a", "b"]}, "id2label: found ['a', 'b'], allowed are names by the numbers of the outputs"),
        ({"id2label": None, "num_labels": 0}, "num_labels: found 0, allowed is a number of outputs, 1 or more"),
        ({"id2label": None, "num_labels": "2"}, "num_labels: found '2', allowed is a number of outputs, 1 or more"),
    ],
)
def test_names_that_are_none_are_refused_with_their_folder_and_key(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = classifier(tmp_path / "model", changes, labels=LABELS[:2])
    assert refused(folder, capsys) == f"error: {folder}: config.json: {message}\n"
    with pytest.raises(ValueError) as caught:
        signature(folder)
    assert str(caught.value) == f"{folder}: config.json: {message}"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "no id2label, so that nobody knows the tags of the model"),
        (
            {str(i): tag for i, tag in enumerate(("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), 1)},
            "id2label: found the numbers 1, 2, 3, 4, 5, allowed are 0 to 4, each once",
        ),
    ],
)
def test_a_tagger_whose_tags_have_no_names_is_refused(
    inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: dict[str, str] | None, message: str
) -> None:
    shutil.copytree(inside / "models/tiny/finetune/tags", tmp_path / "tags")
    folder = changed(tmp_path / "tags", {"id2label": names, "num_labels": 5})
    assert refused(folder, capsys, "tag") == f"error: {folder}: config.json: {message}\n"


def regression(name: str) -> dict[str, Any]:
    """config.json of a GPT that was fine-tuned on the column `name`."""
    model = SequenceClassifier(GPTEncoder(GPT(SHAPE)), LastTokenPooling(), num_labels=1, dropout=0.0, has_bias=False)
    return gpt_classifier_to_huggingface(model, token_ids=IDS, labels=[name])[0]


def test_a_regression_is_a_classifier_whatever_its_column_is_called() -> None:
    for name in ("reward", "LABEL_0", "value"):
        assert kind_of(regression(name), FOLDER) == "classifier", name


def test_a_published_regression_is_no_reward_model_of_ours(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"vocab_size": 37, "n_embd": 16, "n_layer": 1, "n_head": 2, "num_labels": 1}
    config, _ = save_theirs(tmp_path, GPT2ForSequenceClassification(GPT2Config(**shape)))
    assert config["id2label"] == {"0": "LABEL_0"}
    assert kind_of(config, FOLDER) == "classifier"
    assert kind_of(config | {"id2label": {"0": "reward"}}, FOLDER) == "classifier"


def test_a_reward_model_is_known_by_its_mark_and_older_ones_by_what_they_say(inside: Path, tmp_path: Path) -> None:
    config, _ = reward_to_huggingface(RewardModel(GPT(SHAPE)), **IDS)
    assert kind_of(config, FOLDER) == "reward"
    assert kind_of(config | {"id2label": {"0": "quality"}}, FOLDER) == "reward"
    older = {key: value for key, value in config.items() if key != "pipeline_model"}
    assert kind_of(older, FOLDER) == "reward"
    assert kind_of(older | {"pipeline_model": "another"}, FOLDER) == "classifier"
    shutil.copytree(inside / "models/tiny/reward", tmp_path / "reward")
    assert isinstance(open_model(changed(tmp_path / "reward", {}, without=("pipeline_model",))), Scorer)


def test_a_reward_model_that_transformers_saved_again_is_still_one(inside: Path, tmp_path: Path) -> None:
    folder = inside / "models/tiny/reward"
    save_theirs(tmp_path, GPT2ForSequenceClassification.from_pretrained(folder))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    assert isinstance(open_model(tmp_path), Scorer)
    assert torch.equal(load_model(tmp_path).state["score.weight"], load_model(folder).state["score.weight"])
