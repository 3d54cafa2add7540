"""Whatever a fine-tuning learned, its scores are on the page: the metrics here are those of the real evaluations."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.artifacts import write_json
from pipeline.data.examples.classification import LabelledText, SequenceExamples
from pipeline.data.question_records import Answer, Question
from pipeline.data.records import Tagged
from pipeline.inference.answering import SETTINGS, Answered, AnswererSettings, FoundAnswer
from pipeline.layout import Layout
from pipeline.report.blocks import Table
from pipeline.report.inputs import RunFiles, read_run
from pipeline.report.results import evaluate
from pipeline.report.rows import result_specs
from pipeline.report.sections_models import bert_section
from pipeline.stages.finetune_answers import AnswerTask
from pipeline.stages.finetune_tags import TaggingTask
from pipeline.stages.finetune_task import Answers
from pipeline.stages.finetune_texts import Target, TextTask
from pipeline.stages.report import combined
from tests.report.fabricated import write_run


def texts(target: Target, labels: tuple[str, ...], said: np.ndarray) -> Mapping[str, Any]:
    """The metrics of a task of texts with these labels, which are those of train too."""
    rows = [LabelledText(f"word{label} here", None, label, where="") for label in labels]
    numbers = [target.classes.index(label) for label in labels] if target.classes else [float(one) for one in labels]
    found = SequenceExamples((), (), np.array(numbers), pad_id=0, is_shortened=np.zeros(len(rows), dtype=bool))
    splits = {"train": rows, "valid": rows}
    return TextTask(target, splits, dict.fromkeys(splits, found), {}).evaluate(Answers({"valid": said})).metrics


def mnli() -> Mapping[str, Any]:
    """The metrics of MNLI, right in four of five rows of its dev set and in three of the second one."""
    target = Target(("entailment", "neutral", "contradiction"), glue="MNLI")
    labels = {"train": [0, 1, 2, 0, 1], "valid": [0, 1, 2, 0, 1], "valid_mismatched": [0, 0, 0, 1, 2]}
    rows = {
        split: [LabelledText(f"word{i}", None, target.classes[i], where="") for i in numbers]
        for split, numbers in labels.items()
    }
    found = {
        split: SequenceExamples((), (), np.array(numbers), pad_id=0, is_shortened=np.zeros(5, dtype=bool))
        for split, numbers in labels.items()
    }
    said = {"valid": np.array([0, 1, 2, 0, 2]), "valid_mismatched": np.array([0, 0, 0, 0, 0])}
    return TextTask(target, rows, found, {}).evaluate(Answers(said)).metrics


def tags() -> Mapping[str, Any]:
    """The metrics of a task of tags, right in one of two entities."""
    sentences = [Tagged(id="1", words=("Ada", "in", "Rome"), tags=("B-PER", "O", "B-LOC"))]
    task = TaggingTask(("O", "B-LOC", "B-PER"), {"train": sentences, "valid": sentences}, {}, pad_id=0)
    return task.evaluate(Answers({"valid": [["B-PER", "O", "O"]]})).metrics


def questions(*, unanswerable: bool) -> Mapping[str, Any]:
    """The metrics of a task of questions, of which one is answered, and rightly."""
    asked = [Question("1", "Who came?", "Ada came.", answers=(Answer("Ada", 0),))]
    settings = AnswererSettings(max_length=16, stride=4, max_question_tokens=4, unanswerable=unanswerable)
    task = AnswerTask({"train": asked, "valid": asked}, {}, settings, {"valid": "dev.json"}, pad_id=0)
    said = Answered((FoundAnswer("Ada", 0, 2.0, 0.9),), -1.5, 0.1, settings.highest_no_answer, is_shortened=False)
    return task.evaluate(Answers({"valid": [said]}, {SETTINGS: settings.model_dump()})).metrics


CLASSES = ("not_entailment", "entailment")
LEARNED: dict[str, Callable[[], Mapping[str, Any]]] = {
    "own": lambda: texts(Target(("bad", "good")), ("bad", "good"), np.array([0, 0])),
    "stars": lambda: texts(Target((), value="stars"), ("1.5", "4", "2"), np.array([1.0, 4.0, 2.5])),
    "wnli": lambda: texts(Target(CLASSES, glue="WNLI"), CLASSES, np.array([0, 1])),
    "names": tags,
    "squad": lambda: questions(unanswerable=False),
    "squad2": lambda: questions(unanswerable=True),
}
"""A task of each kind by the name of its configuration."""
SHOWN = {
    "own": "accuracy 0.500, f1 0.000, matthews 0.000",
    "stars": "pearson 0.945, spearman 1.000",
    "wnli": "accuracy 1.000, f1 1.000, glue 100.000, matthews 1.000",
    "names": "accuracy 0.667, f1 0.667, num predicted 1, num true 2, precision 1.000, recall 0.500, strict f1 0.667",
    "squad": "exact match 1.000, f1 1.000, num 1",
    # Nothing stands for the questions without an answer: there is none.
    "squad2": "best exact: score 1.000, best exact: threshold -1.500, best f1: score 1.000, "
    "best f1: threshold -1.500, exact match 1.000, f1 1.000, "
    "has answer: exact match 1.000, has answer: f1 1.000, has answer: num 1",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFiles:
    """What the report reads after a task of each kind, with the answers of one of them beside its metrics."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, stages={f"finetune/{name}": metrics() for name, metrics in LEARNED.items()})
    write_json(Path("metrics/cpu/predictions/finetune/squad/valid.json"), {"1": "Ada"})
    return read_run(Layout.of(Path("conf/cpu/report.yaml")))


def test_the_scores_of_every_kind_of_task_are_shown_beside_its_baselines(run: RunFiles) -> None:
    (table,) = (block for block in bert_section(run).blocks if isinstance(block, Table))
    shown = {row[0]: row[1] for row in table.rows}
    assert {name: shown[f"{name}, pretrained"] for name in LEARNED} == SHOWN
    assert shown["names, frequent tag"].startswith("accuracy 1.000, f1 1.000, num predicted 2, num true 2")
    assert shown["squad2, always no answer"] == "exact match 0.000, f1 0.000, num 1"


def test_every_task_is_a_row_of_the_results_with_its_baselines_and_the_command_that_makes_it(run: RunFiles) -> None:
    rows = {one.spec.id: one for one in evaluate(result_specs(run), {}, run)}
    found = {name: (rows[f"finetune_{name}"].spec.measure, rows[f"finetune_{name}"].value) for name in LEARNED}
    assert found == {
        "own": ("accuracy, valid", 0.5),
        "stars": ("Pearson correlation, valid", pytest.approx(3.75 / np.sqrt(3.5 * 4.5))),
        "wnli": ("figure of GLUE, valid", 100.0),
        "names": ("F1, valid", pytest.approx(2 / 3)),
        "squad": ("F1, valid", 1.0),
        "squad2": ("F1, valid", 1.0),
    }
    assert rows["finetune_squad2"].baselines == {"always no answer": 0.0, "nearest sentence": pytest.approx(2 / 3)}
    assert rows["finetune_names"].command == "dvc repro tasks@names"


def test_the_row_of_mnli_is_the_mean_of_both_its_sets_beside_that_of_its_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, stages={"finetune/mnli": mnli()})
    found = read_run(Layout.of(Path("conf/cpu/report.yaml")))
    (row,) = (one for one in evaluate(result_specs(found), {}, found) if one.spec.id == "finetune_mnli")
    assert row.spec.measure == "figure of GLUE, mean of valid and valid_mismatched"
    assert row.value == pytest.approx((80 + 60) / 2)
    assert row.baselines["majority"] == pytest.approx((40 + 60) / 2)
    assert row.baselines["bag of words"] == found.number("finetune/mnli", "glue_baselines.bag_of_words")


def test_what_a_model_says_of_every_example_is_no_metric(run: RunFiles) -> None:
    assert set(run.metrics) == set(combined(run, [])["stages"]) == {f"finetune/{name}" for name in LEARNED}
