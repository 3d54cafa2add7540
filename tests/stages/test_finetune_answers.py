"""The stage finetune on questions: planted answers are found, in their own spelling, or said not to be there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close
from transformers import BertForQuestionAnswering

from pipeline.artifacts import read_json
from pipeline.config import TrainingConfig
from pipeline.data.preparing.squad import SquadSource
from pipeline.data.preparing.tasks import prepare_tasks
from pipeline.data.question_records import Question, read_questions, write_questions
from pipeline.inference.answering import SETTINGS, open_answerer
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.huggingface.bert import bert_to_huggingface
from pipeline.stages.finetune_answers import AnswerTask, QuestionsTask, open_questions
from tests.folders import save_folder
from tests.foundations.chain import Run
from tests.stages.riddles import squad, tokenizer
from tests.training.harness import Workspace, snapshot

CONFIG: dict[str, Any] = {
    "training": {
        "seed": 1,
        "batching": {"kind": "examples", "examples_per_step": 32},
        "duration": {"kind": "steps", "num_steps": 300},
        "optimizer": {"lr": 0.005, "betas": [0.9, 0.98]},
        "schedule": {"kind": "linear", "num_warmup_steps": 5},
        "validate_every": 150,
        "checkpoint_every": 150,
    },
    "start": "pretrained",
    "max_length": 20,
    "dropout": 0.0,
}
TASK = {"kind": "questions", "stride": 6, "max_question_tokens": 5, "max_answer_tokens": 4}
VERSIONS = {"one": False, "two": True}


def write_task(root: Path, name: str, *, unanswerable: bool) -> Path:
    """Riddles in the official layout, prepared."""
    raw = root / f"data/tiny/raw/{name}"
    raw.mkdir(parents=True)
    for seed, (file, num_articles) in enumerate({"train": 160, "dev": 40, "test": 40}.items()):
        (raw / f"{file}.json").write_text(json.dumps(squad(seed, num_articles, unanswerable=unanswerable)))
    source = SquadSource(
        kind="squad", source=name, train="train.json", valid="dev.json", test="test.json", unanswerable=unanswerable
    )
    prepare_tasks({name: source}, root / "data/tiny/raw", root / "data/tiny/prepared/tasks")
    return root / "data/tiny/prepared/tasks" / name


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the stage ran on both versions."""
    code = snapshot(tmp_path_factory.mktemp("code"))
    root = tmp_path_factory.mktemp("answers") / "workspace"
    Workspace(root, code, module="", config="conf/tiny/")
    torch.manual_seed(0)
    words = tokenizer()
    # Wide initial weights: from narrow ones so small a network takes long to look at the question at all.
    shape = BertConfig(
        vocab_size=words.vocab_size,
        d_model=32,
        num_layers=1,
        num_heads=2,
        d_ff=64,
        max_length=24,
        dropout=0.0,
        initial_std=0.2,
    )
    start = bert_to_huggingface(BertForPretraining(shape), pad_token_id=words.pad_id)
    save_folder(root / "models/tiny/pretrain_bert", start, words)
    (root / "conf/tiny/finetune").mkdir(parents=True)
    for name, unanswerable in VERSIONS.items():
        write_task(root, name, unanswerable=unanswerable)
        (root / f"conf/tiny/finetune/{name}.yaml").write_text(yaml.safe_dump(CONFIG | {"task": TASK | {"name": name}}))
        Run(root, f"finetune/{name}").run("cpu")
    return root


def metrics(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(root / f"metrics/tiny/finetune/{name}.json")
    return found


def questions_of(workspace: Path) -> AnswerTask:
    """The questions of the second version."""
    settings = QuestionsTask.model_validate(TASK | {"name": "two"})
    return open_questions(workspace / "data/tiny/prepared/tasks/two", tokenizer(), settings, max_length=20)


def test_answers_are_learned_far_above_the_nearest_sentence(workspace: Path) -> None:
    found = metrics(workspace, "one")
    assert found["split"] == "test"
    assert found["score"]["exact_match"] > 0.9 and found["score"]["f1"] > 0.9
    assert found["baselines"]["nearest_sentence"]["f1"] < 0.5
    assert found["others"]["valid"]["score"]["exact_match"] > 0.9


def test_what_has_no_answer_is_learned_far_above_never_answering(workspace: Path) -> None:
    found = metrics(workspace, "two")
    score, nothing = found["score"], found["baselines"]["always_no_answer"]
    assert score["f1"] > 0.9 > 0.7 > nothing["f1"]
    assert score["has_answer"]["f1"] > 0.8 and score["no_answer"]["f1"] > 0.8
    questions = read_questions(workspace / "data/tiny/prepared/tasks/two/test.jsonl")
    share = np.mean([question.is_impossible for question in questions])
    assert nothing["exact_match"] == nothing["f1"] == pytest.approx(share)
    assert score["no_answer"]["num"] == sum(question.is_impossible for question in questions)


def test_the_threshold_is_the_best_one_of_valid_and_is_kept_with_the_model(workspace: Path) -> None:
    found, settings = metrics(workspace, "two"), read_json(workspace / "models/tiny/finetune/two" / SETTINGS)
    chosen = found["others"]["valid"]["score"]["best_f1"]["threshold"]
    assert settings["no_answer_threshold"] == found["no_answer"]["threshold"] == chosen
    assert settings["threshold_chosen_on"] == found["no_answer"]["chosen_on"] == "valid: dev.json"
    assert found["others"]["valid"]["score"]["f1"] == found["others"]["valid"]["score"]["best_f1"]["score"]
    windows = ("max_length", "stride", "max_question_tokens", "max_answer_tokens", "unanswerable")
    assert [settings[key] for key in windows] == [20, 6, 5, 4, True]
    assert read_json(workspace / "models/tiny/finetune/one" / SETTINGS)["unanswerable"] is False


@pytest.mark.parametrize("name", VERSIONS)
def test_the_folder_answers_as_the_stage_did_in_the_spelling_of_the_passage(workspace: Path, name: str) -> None:
    model = open_answerer(workspace / "models/tiny/finetune" / name)
    questions = read_questions(workspace / f"data/tiny/prepared/tasks/{name}/test.jsonl")
    found = model.answer(questions)
    said = {question.id: answered.text for question, answered in zip(questions, found, strict=True)}
    folder = workspace / f"metrics/tiny/predictions/finetune/{name}"
    assert said == read_json(folder / "test.json")
    right = [
        answered.text in (question.references or [""]) for question, answered in zip(questions, found, strict=True)
    ]
    assert np.mean(right) > 0.9
    assert any(any(letter.isupper() or letter == "é" for letter in text) for text in said.values())
    assert set(read_json(folder / "valid.json")) == {
        f"1-{i}-{kind}" for i in range(40) for kind in ("colour", "animal")
    }
    if name == "two":
        differences = read_json(folder / "test-no-answer.json")
        threshold, best = model.settings.no_answer_threshold, read_json(folder / "test-best.json")
        assert all(best.values()) and "" in said.values()
        assert said == {key: text if differences[key] <= threshold else "" for key, text in best.items()}


def test_questions_windows_and_losses_are_counted(workspace: Path) -> None:
    found = metrics(workspace, "one")
    assert found["num_questions"] == {"train": 320, "valid": 80, "test": 80}
    assert found["num_windows"]["train"] > 400
    assert (
        found["num_shortened"]
        == found["num_inexact"]
        == found["num_out_of_reach"]
        == {
            "train": 0,
            "valid": 0,
            "test": 0,
        }
    )


@torch.no_grad()
def test_transformers_opens_the_folder_with_our_scores(workspace: Path) -> None:
    folder = workspace / "models/tiny/finetune/two"
    ours = open_answerer(folder).model
    batch = questions_of(workspace).valid.collate(np.arange(12), 0)
    theirs: Any = BertForQuestionAnswering.from_pretrained(folder)
    expected = theirs(
        input_ids=batch.input_ids, token_type_ids=batch.token_type_ids, attention_mask=batch.attention_mask.long()
    )
    found = ours(batch.input_ids, batch.token_type_ids, batch.attention_mask)
    assert expected.start_logits.std() > 0.1
    # States of padding, which nobody reads, are not computed here.
    real = batch.attention_mask
    assert_close(found.start[real], expected.start_logits[real], atol=1e-4, rtol=0)
    assert_close(found.end[real], expected.end_logits[real], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_loss_is_that_of_transformers_and_padding_is_in_no_softmax(workspace: Path) -> None:
    """Theirs takes padding for something that may be predicted: rows of one length have none."""
    folder = workspace / "models/tiny/finetune/two"
    task = questions_of(workspace)
    lengths = task.train.sizes(0).lengths
    module = task.module(open_answerer(folder).model, TrainingConfig.model_validate(CONFIG["training"]))
    theirs: Any = BertForQuestionAnswering.from_pretrained(folder)
    rows = np.flatnonzero(lengths == np.bincount(lengths).argmax())[:24]
    batch = task.train.collate(rows, 0)
    assert (batch.starts == 0).any() and (batch.starts > 0).any()
    expected = theirs(
        input_ids=batch.input_ids,
        token_type_ids=batch.token_type_ids,
        attention_mask=batch.attention_mask.long(),
        start_positions=batch.starts,
        end_positions=batch.ends,
    ).loss
    (terms,) = module.objective(batch)
    assert terms.num_targets == len(rows)
    assert_close(terms.loss_sum / terms.num_targets, expected, atol=1e-4, rtol=1e-4)
    shortest = np.array([lengths.argmin()])
    assert lengths[shortest] < lengths[rows[0]]
    (alone,) = module.objective(task.train.collate(shortest, 0))
    (together,) = module.objective(task.train.collate(np.append(rows, shortest), 0))
    assert_close(together.loss_sum, terms.loss_sum + alone.loss_sum, atol=1e-3, rtol=1e-4)


def test_an_encoder_that_is_no_bert_is_refused(workspace: Path) -> None:
    with pytest.raises(ValueError, match="task: questions are answered by BERT alone, found Linear"):
        questions_of(workspace).network(torch.nn.Linear(2, 2), torch.nn.Identity(), dropout=0.0)


def test_a_test_set_without_answers_is_answered_and_not_scored(workspace: Path, tmp_path: Path) -> None:
    folder = write_task(tmp_path, "two", unanswerable=True)
    bare = [
        Question(one.id, one.question, one.passage, is_labelled=False) for one in read_questions(folder / "test.jsonl")
    ]
    write_questions(folder / "test.jsonl", bare)
    settings = QuestionsTask.model_validate(TASK | {"name": "two"})
    task = open_questions(folder, tokenizer(), settings, max_length=20)
    evaluation = task.evaluate(task.answer(open_answerer(workspace / "models/tiny/finetune/two").model))
    assert evaluation.metrics["split"] == "valid" and evaluation.metrics["others"] == {}
    assert set(json.loads(evaluation.predictions["test.json"])) == {question.id for question in bare}


def test_what_cannot_be_learned_from_is_refused_with_its_file(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "two", unanswerable=True)
    settings = QuestionsTask.model_validate(TASK | {"name": "two"})
    with pytest.raises(
        ValueError, match="stride: 6 is more than the 4 tokens of the passage that a row of 12 holds bes"
    ):
        open_questions(folder, tokenizer(), settings, max_length=12)
    questions = read_questions(folder / "valid.jsonl")
    bare = Question("bare", "Which?", "It was red.", is_labelled=False)
    write_questions(folder / "valid.jsonl", [*questions, bare])
    with pytest.raises(ValueError, match=r"valid\.jsonl: 1 of 81 questions have no answers, first 'bare'"):
        open_questions(folder, tokenizer(), settings, max_length=20)
    write_questions(folder / "valid.jsonl", [*questions, Question("zero", "Which?", "\u200b")])
    with pytest.raises(ValueError, match=r"valid\.jsonl: question 'zero': no token in the passage '\\u200b'"):
        open_questions(folder, tokenizer(), settings, max_length=20)
    (folder / "task.json").write_text('{"kind": "glue", "name": "RTE"}')
    with pytest.raises(ValueError, match=r"task\.json: expected a task of the kind questions, found {'kind': 'glue'"):
        open_questions(folder, tokenizer(), settings, max_length=20)
