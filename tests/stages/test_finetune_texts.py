"""Fine-tuning on GLUE and on a user's own files: every split is answered, and scored where its labels are known."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.artifacts import write_json
from pipeline.cli import main as command_line
from pipeline.config import load
from pipeline.data.examples.classification import LabelledText
from pipeline.data.preparing.tasks import TASK
from pipeline.data.records import Labelled, write_records
from pipeline.evaluation.bag_of_words import bag_of_words_classes
from pipeline.evaluation.glue import classification_score, regression_score
from pipeline.inference.models import Classifier, open_model
from pipeline.stages.finetune import FinetuneConfig
from pipeline.stages.finetune_sources import glue_texts
from pipeline.stages.finetune_task import Answers
from pipeline.stages.finetune_texts import Target, glue_figure, open_texts
from pipeline.text.tokenizer_training import train_wordpiece
from tests.foundations.chain import Run
from tests.stages.grammar import WORDS
from tests.stages.test_finetune import pretrained, tokenizer, write_start
from tests.stages.text_tasks import (
    MNLI_CLASSES,
    NUM_LONG,
    OWN_LENGTH,
    PARAPHRASES,
    SPLITS,
    few_texts,
    pairs,
    paraphrases,
    settings,
    similarities,
    values,
    write_values,
)
from tests.training.harness import Workspace, snapshot


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the stage ran on MNLI, on STS-B, on MRPC, and on two tasks of a user."""
    root = tmp_path_factory.mktemp("glue") / "workspace"
    Workspace(root, snapshot(tmp_path_factory.mktemp("code")), module="", config="conf/tiny/")
    prepared = root / "data/tiny/prepared/tasks"
    for split, count in SPLITS.items():
        write_records(prepared / f"MNLI/{split}.jsonl", pairs(split, count))
    write_json(prepared / "MNLI" / TASK, {"kind": "glue", "name": "MNLI"})
    for seed, (split, count) in enumerate({"train": 200, "valid": 40, "test": 10}.items()):
        rows = similarities(count, seed=seed)
        hidden = [Labelled(row.id, row.text, row.second, "") for row in rows]
        write_records(prepared / f"similarity/{split}.jsonl", hidden if split == "test" else rows)
    write_json(prepared / "similarity" / TASK, {"kind": "glue", "name": "STS-B"})
    for split, count in PARAPHRASES.items():
        write_records(prepared / f"MRPC/{split}.jsonl", paraphrases(split, count))
    write_json(prepared / "MRPC" / TASK, {"kind": "glue", "name": "MRPC"})
    (root / "own").mkdir()
    for split, count in {"train": 200, "valid": 20, "test": 20}.items():
        random = np.random.default_rng(count)
        words = random.choice(WORDS[:8], (count, 3)).tolist()
        if split == "valid":
            words += random.choice(WORDS[:8], (NUM_LONG, 10)).tolist()
        labels = ["early" if sum(WORDS.index(word) for word in row[:3]) < 10 else "late" for row in words]
        lines = [f"{label}\t{' '.join(row)}" for label, row in zip(labels, words, strict=True)]
        (root / f"own/{split}.tsv").write_text("\n".join(["when\tsays", *lines]) + "\n")
    write_start(root, pretrained()).rename(root / "a-bert")
    tasks: dict[str, dict[str, object]] = {
        "mnli": {"kind": "glue", "name": "MNLI"},
        "similarity": {"kind": "glue", "name": "STS-B", "folder": "similarity"},
        "mrpc": {"kind": "glue", "name": "MRPC"},
        "own": {
            "kind": "files",
            "splits": {split: f"own/{split}.tsv" for split in ("train", "valid", "test")},
            "text": "says",
            "label": "when",
            "target": "classes",
        },
        "values": write_values(root),
    }
    (root / "conf/tiny/finetune").mkdir(parents=True)
    for name, task in tasks.items():
        length = {"max_length": OWN_LENGTH} if name == "own" else {}
        config = settings(task=task, encoder="a-bert", **length)
        (root / f"conf/tiny/finetune/{name}.yaml").write_text(yaml.safe_dump(config))
        Run(root, f"finetune/{name}").run("cpu")
    return root


def metrics(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / f"metrics/tiny/finetune/{name}.json").read_text())
    return found


def table(root: Path, name: str, file: str) -> list[list[str]]:
    """The rows of a file of predictions."""
    text = (root / f"metrics/tiny/predictions/finetune/{name}/{file}").read_text()
    assert text.endswith("\n")
    return [line.split("\t") for line in text.split("\n")[:-1]]


def test_a_pair_task_is_learned_and_scored_on_dev_where_the_test_set_is_hidden(workspace: Path) -> None:
    found = metrics(workspace, "mnli")
    assert found["split"] == "valid"
    assert found["score"]["accuracy"] > 0.8 > found["baselines"]["majority"]["accuracy"] + 0.2
    assert found["num_texts"] == SPLITS
    assert found["others"].keys() == {"valid_mismatched", "diagnostic"}
    mismatched = found["others"]["valid_mismatched"]["score"]["accuracy"]
    assert mismatched < found["score"]["accuracy"]
    assert found["glue"] == pytest.approx(50 * (found["score"]["accuracy"] + mismatched))


def test_the_baselines_of_a_task_of_two_sets_are_the_means_over_the_same_sets(workspace: Path) -> None:
    found = metrics(workspace, "mnli")
    matched, mismatched = found["baselines"], found["others"]["valid_mismatched"]["baselines"]
    assert found["glue_baselines"].keys() == {"majority", "bag_of_words"} == matched.keys()
    for name, mean in found["glue_baselines"].items():
        assert mean == pytest.approx((matched[name]["glue"] + mismatched[name]["glue"]) / 2)
    assert matched["bag_of_words"] != mismatched["bag_of_words"]


def test_a_bag_of_words_that_is_fitted_once_says_of_each_set_what_it_says_of_it_alone(workspace: Path) -> None:
    found = metrics(workspace, "mnli")["others"]["valid_mismatched"]["baselines"]["bag_of_words"]
    known, asked = (pairs(split, SPLITS[split]) for split in ("train", "valid_mismatched"))
    words, wanted = ([f"{one.text} {one.second}" for one in rows] for rows in (known, asked))
    labels, truth = (np.array([MNLI_CLASSES.index(one.label) for one in rows]) for rows in (known, asked))
    said = bag_of_words_classes(words, labels, wanted)
    assert found["accuracy"] == pytest.approx(float((said == truth).mean()))


def test_the_scores_are_those_of_the_answers_that_are_written(workspace: Path) -> None:
    for name, split in (("mnli", "valid"), ("mnli", "valid_mismatched"), ("own", "test"), ("own", "valid")):
        head, *rows = table(workspace, name, f"{split}.tsv")
        assert head == ["index", "label", "prediction"]
        assert [row[0] for row in rows] == [str(i) for i in range(len(rows))]
        classes = MNLI_CLASSES if name == "mnli" else ("early", "late")
        truth, answers = (np.array([classes.index(row[i]) for row in rows]) for i in (1, 2))
        whole = metrics(workspace, name)
        found = whole if whole["split"] == split else whole["others"][split]
        expected = classification_score(answers, truth, num_classes=len(classes))
        assert found["score"]["accuracy"] == pytest.approx(expected.accuracy)
        assert found["score"]["f1"] == pytest.approx(expected.f1)


def test_hidden_test_sets_are_answered_in_the_files_of_the_leaderboard(workspace: Path) -> None:
    folder = workspace / "metrics/tiny/predictions/finetune/mnli"
    assert {path.name for path in folder.iterdir()} == {
        *("valid.tsv", "valid_mismatched.tsv", "diagnostic.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv")
    }
    for file, split in (("MNLI-m.tsv", "test"), ("MNLI-mm.tsv", "test_mismatched")):
        head, *rows = table(workspace, "mnli", file)
        assert head == ["index", "prediction"]
        assert [row[0] for row in rows] == [str(i) for i in range(SPLITS[split])]
        halves = [
            sum(WORDS.index(word) >= 4 for word in (one.text, one.second or "")) for one in pairs(split, SPLITS[split])
        ]
        assert np.mean([row[1] == MNLI_CLASSES[half] for row, half in zip(rows, halves, strict=True)]) > 0.7
    answers = [float(row[1]) for row in table(workspace, "similarity", "STS-B.tsv")[1:]]
    assert len(answers) == 10 and all(0 <= answer <= 5 for answer in answers)


def test_a_task_of_the_benchmark_is_scored_on_dev_and_its_test_set_answered_though_the_labels_are_known(
    workspace: Path,
) -> None:
    found = metrics(workspace, "mrpc")
    assert found["split"] == "valid" and found["num_texts"] == PARAPHRASES
    assert found["glue"] == pytest.approx(found["score"]["glue"])
    labels = [one.label for one in paraphrases("valid", PARAPHRASES["valid"])]
    assert [row[1] for row in table(workspace, "mrpc", "valid.tsv")[1:]] == labels
    head, *answered = table(workspace, "mrpc", "MRPC.tsv")
    assert head == ["index", "prediction"]
    assert [row[0] for row in answered] == [str(2 * i + 1) for i in range(PARAPHRASES["test"])]
    _, *scored = table(workspace, "mrpc", "test.tsv")
    numbers = {"equivalent": "1", "not_equivalent": "0"}
    assert [[index, numbers[said]] for index, _, said in scored] == answered
    share = np.mean([label == said for _, label, said in scored])
    assert found["others"].keys() == {"test"}
    assert found["others"]["test"]["score"]["accuracy"] == pytest.approx(share)


def test_a_regression_is_scored_by_correlations_whose_mean_is_the_figure_of_the_benchmark(workspace: Path) -> None:
    found = metrics(workspace, "similarity")
    rows = table(workspace, "similarity", "valid.tsv")[1:]
    truth, answers = (np.array([float(row[i]) for row in rows]) for i in (1, 2))
    expected = regression_score(answers, truth)
    assert found["score"]["pearson"] == pytest.approx(expected.pearson, abs=1e-5)
    assert found["score"]["glue"] == pytest.approx(50 * (expected.pearson + expected.spearman), abs=1e-3)
    assert found["score"]["pearson"] > 0.9


def test_a_figure_of_the_benchmark_is_the_mean_of_what_the_task_reports() -> None:
    assert glue_figure({"accuracy": 0.8, "f1": 0.9, "matthews": 0.1}, ("f1", "accuracy")) == pytest.approx(85.0)


def test_the_figure_of_the_diagnostic_set_is_matthews_correlation_and_counts_for_no_other() -> None:
    texts = {
        split: [LabelledText(f"{split} {label}", "so", label, where="") for label in MNLI_CLASSES]
        for split in ("train", "valid", "diagnostic")
    }
    task = open_texts(texts, Target(MNLI_CLASSES, glue="MNLI"), tokenizer(), max_length=9)
    found = task.evaluate(Answers({"valid": np.array([0, 1, 0]), "diagnostic": np.array([0, 1, 1])})).metrics
    assert found["glue"] == found["score"]["glue"] == pytest.approx(200 / 3)
    diagnostic = found["others"]["diagnostic"]
    # Two of three right; the covariances of what is said are 3 with the truth, 4 and 6 with themselves.
    assert diagnostic["score"]["glue"] == pytest.approx(100 * 3 / np.sqrt(4 * 6))
    assert diagnostic["baselines"]["majority"]["glue"] == 0.0


def test_the_files_of_a_user_become_a_classifier_for_the_command_line(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = metrics(workspace, "own")
    assert found["split"] == "test" and found["score"]["accuracy"] > 0.9
    monkeypatch.chdir(workspace)
    assert command_line(["classify", "--model", "models/tiny/finetune/own", "amber amber birch"]) == 0
    assert capsys.readouterr().out.startswith("early\t0.")
    model = open_model(Path("models/tiny/finetune/own"))
    assert isinstance(model, Classifier) and model.labels == ("early", "late")


def test_values_in_the_files_of_a_user_become_a_regression(workspace: Path) -> None:
    found = metrics(workspace, "values")
    assert found["split"] == "test" and found["num_texts"] == {"train": 200, "valid": 30, "test": 30}
    assert found["others"].keys() == {"valid"} and found["baselines"].keys() == {"bag_of_words"}
    assert "glue" not in found and "notes" not in found
    for seed, (split, part) in enumerate({"valid": found["others"]["valid"], "test": found}.items(), start=1):
        head, *rows = table(workspace, "values", f"{split}.tsv")
        assert head == ["index", "label", "prediction"]
        assert [float(row[1]) for row in rows] == [value for _, value in values(seed, 30)]
        score = regression_score(*(np.array([float(row[i]) for row in rows]) for i in (2, 1)))
        assert part["score"]["pearson"] == pytest.approx(score.pearson, abs=1e-5)
        assert part["score"]["spearman"] == pytest.approx(score.spearman, abs=1e-5)
    assert found["score"]["pearson"] > 0.9
    model = open_model(workspace / "models/tiny/finetune/values")
    assert isinstance(model, Classifier) and model.labels == ("place",)


@pytest.mark.parametrize(
    ("name", "texts", "target", "note"),
    [
        ("short", ["amber", "birch tree", "cedar", "good day"], "classes", "no word stands in two training texts"),
        (
            "unspaced",
            ["这部电影很好看。", "情节非常无聊。", "演员的表演很精彩。", "音乐实在太差了。"],
            "classes",
            "no word stands in two training texts",
        ),
        ("symbols", ["!", "? ?", ":-)", "1 + 1"], "value", "no word of two letters or more in the training texts"),
    ],
)
def test_texts_without_common_words_are_learned_and_what_becomes_of_the_baseline_is_noted(
    workspace: Path, name: str, texts: list[str], target: str, note: str
) -> None:
    outcome = few_texts(workspace, name, texts, target=target).run("cpu")
    found = metrics(workspace, name)
    assert found["notes"]["bag_of_words"].startswith(note) and f"bag of words: {note}" in outcome.log
    # The three texts that are asked are among the four that are known.
    known = {"accuracy": 1.0, "f1": 1.0, "matthews": 1.0}
    constant = {"pearson": 0.0, "spearman": 0.0}
    assert found["baselines"]["bag_of_words"] == pytest.approx(known if target == "classes" else constant)
    assert (workspace / f"models/tiny/finetune/{name}/model.safetensors").is_file()


def test_a_baseline_that_fails_ends_the_stage_and_does_not_lose_the_model(workspace: Path) -> None:
    run = few_texts(workspace, "broken", WORDS[:4], target="classes")
    run.module = "tests.stages.broken_baseline"
    outcome = run.run("cpu", expect=(2,))
    assert "the baseline is broken" in outcome.log
    kept = (workspace / "models/tiny/finetune/broken/model.safetensors").read_bytes()
    model = open_model(workspace / "models/tiny/finetune/broken")
    assert isinstance(model, Classifier) and model.labels == ("0", "1")
    assert not (workspace / "metrics/tiny/finetune/broken.json").exists()
    # The stage in order takes up what was trained.
    again = Run(workspace, "finetune/broken").run("cpu")
    assert "continuing from" in again.log
    assert metrics(workspace, "broken")["split"] == "valid"
    assert (workspace / "models/tiny/finetune/broken/model.safetensors").read_bytes() == kept


def test_texts_longer_than_the_task_reads_are_answered_as_the_stage_predicted(workspace: Path) -> None:
    model = open_model(workspace / "models/tiny/finetune/own")
    assert isinstance(model, Classifier)
    texts = [line.split("\t")[1] for line in (workspace / "own/valid.tsv").read_text().splitlines()[1:]]
    predicted = [row[2] for row in table(workspace, "own", "valid.tsv")[1:]]
    found = model.classify(texts)
    assert [one.label for one in found] == predicted
    assert sum(one.is_cut for one in found) == NUM_LONG == metrics(workspace, "own")["num_shortened"]["valid"]
    # As far as the positions go, the ends would count too.
    model.max_length = model.model.encoder.config.max_length
    assert model.max_length == 2 * OWN_LENGTH
    assert [one.label for one in model.classify(texts)] != predicted


def test_what_a_training_costs_is_in_its_metrics(workspace: Path) -> None:
    """Of T tokens in a row, of which the first is read: 3 passes over the one layer, each of 2 T x 3 x 32^2 operations
    for queries, keys and values, and 4 x 32 T + 2 (32^2 + 2 x 32 x 48) for the first.
    """
    rows = [
        [3 + 1 + len(tokenizer().encode(row.text)) + len(tokenizer().encode(row.second or "")) - 1]
        for row in pairs("train", SPLITS["train"])
    ]
    (length,) = {row[0] for row in rows}
    one = 3 * (2 * length * 3 * 32**2 + 4 * 32 * length + 2 * (32**2 + 2 * 32 * 48))
    assert metrics(workspace, "mnli")["training"]["flops"] == pytest.approx(16 * 480 * one)


def test_a_folder_of_another_task_and_a_split_with_labels_here_and_there_are_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "train.jsonl", pairs("train", 4))
    write_json(tmp_path / TASK, {"kind": "glue", "name": "RTE"})
    with pytest.raises(ValueError, match=r"task.json: expected the GLUE task MNLI, found .*'RTE'"):
        glue_texts(tmp_path, "MNLI")
    texts = [LabelledText(WORDS[0], None, label, f"t:{i}") for i, label in enumerate(("a", ""))]
    with pytest.raises(ValueError, match="t:1: label '' is not allowed; allowed are"):
        open_texts(
            {"train": texts[:1], "valid": texts[:1], "test": texts}, Target(("a", "b")), tokenizer(), max_length=9
        )
    with pytest.raises(ValueError, match="the split valid has no texts"):
        open_texts({"train": texts[:1], "valid": []}, Target(("a", "b")), tokenizer(), max_length=9)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"splits": {"train": "a.tsv"}}, "no valid, found train"),
        ({"splits": {"train": "a.tsv", "dev": "b.tsv"}}, "task.splits.dev"),
        ({"target": "kinds"}, "task.target: Input should be 'classes' or 'value', found 'kinds'"),
    ],
)
def test_a_configuration_of_files_that_lacks_something_is_refused(
    task: dict[str, Any], message: str, tmp_path: Path
) -> None:
    files = {"train": "a.tsv", "valid": "b.tsv"}
    whole = {"kind": "files", "splits": files, "text": "says", "label": "when", "target": "classes"} | task
    path = tmp_path / "finetune.yaml"
    path.write_text(yaml.safe_dump(settings(task=whole)))
    with pytest.raises(ValueError, match=message):
        load(path, FinetuneConfig)


def test_an_encoder_whose_tokenizer_is_another_one_is_refused(workspace: Path) -> None:
    folder = workspace / "other-bert"
    shutil.copytree(workspace / "a-bert", folder)
    train_wordpiece([" ".join([*WORDS, *(f"stranger{i}" for i in range(99))])] * 9, vocab_size=900).save(folder)
    (workspace / "conf/tiny/finetune/other.yaml").write_text(
        yaml.safe_dump(settings(task={"kind": "glue", "name": "MNLI"}, encoder="other-bert"))
    )
    outcome = Run(workspace, "finetune/other").run("cpu", expect=(2,))
    assert "other-bert: the tokenizer does not fit the model" in outcome.log
    assert not (workspace / "models/tiny/finetune/other").exists()
