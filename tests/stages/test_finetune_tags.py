"""The stage finetune on tags: entities that only the words around them tell are learned from a column file."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close
from transformers import BertForTokenClassification

from pipeline.artifacts import load_model, write_json
from pipeline.config import TrainingConfig
from pipeline.data.examples.tagging import tagging_examples, untagged_examples
from pipeline.data.prepared import read_tagged
from pipeline.data.preparing.conll import ConllSource
from pipeline.data.preparing.tasks import prepare_tasks
from pipeline.data.records import Tagged, write_records
from pipeline.evaluation.tagging import entities, tagging_score
from pipeline.inference.models import open_model
from pipeline.inference.tagger import Tagger
from pipeline.inference.tagging import best_tags, predict
from pipeline.models.bert import Bert, BertConfig
from pipeline.models.heads import TokenClassifier
from pipeline.models.huggingface.bert import token_classifier_from_huggingface
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.stages.finetune_tags import TaggingTask, conll_rows, open_tagging
from pipeline.stages.finetune_task import OpenedTask
from pipeline.text.tags import iob2_tags, read_tags, write_tags
from tests.evaluation.slow_conlleval import counts
from tests.foundations.chain import Run
from tests.parity.hf import spread
from tests.stages.grammar import WORDS
from tests.stages.test_finetune import CONFIG, pretrained, tokenizer, write_start
from tests.training.harness import Workspace, snapshot

FIRST, SECOND, CUES, OTHERS = WORDS[:5], WORDS[5:10], dict(zip(WORDS[10:12], ("PER", "LOC"), strict=True)), WORDS[12:]
"""First and second words of names; the words in whose sentences every name is a person, or a place; other words."""
SIZES = {"train": 250, "valid": 30, "test": 60}
TRAINING = TrainingConfig.model_validate(CONFIG["training"])
SETTINGS = CONFIG | {"task": {"kind": "tagging", "name": "names"}, "max_length": 12}


def sentences(seed: int, count: int) -> str:
    """A column file in IOB1: words without a tag, and names of one or two words behind the word that tells the type.

    Every tenth sentence is longer than the model.
    """
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        cue, kind = draw.choice(list(CUES.items()))
        for _ in range(9 if number % 10 == 0 else 2):
            lines += [f"{word} O" for word in [*draw.sample(OTHERS, draw.randrange(3)), cue]]
            name = [draw.choice(FIRST), draw.choice(SECOND)][: draw.randrange(1, 3)]
            lines += [f"{word} I-{kind}" for word in name]
        lines.append("")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the files were prepared and the stage ran on them."""
    code = snapshot(tmp_path_factory.mktemp("code"))
    root = tmp_path_factory.mktemp("finetune") / "workspace"
    Workspace(root, code, module="", config="conf/tiny/")
    (root / "data/tiny/raw/corpus").mkdir(parents=True)
    for split, count in SIZES.items():
        (root / f"data/tiny/raw/corpus/{split}.txt").write_text(sentences(len(split), count))
    source = ConllSource.model_validate(
        {"kind": "conll", "source": "corpus", "scheme": "iob1", **{split: f"{split}.txt" for split in SIZES}}
    )
    prepare_tasks({"names": source}, root / "data/tiny/raw", root / "data/tiny/prepared/tasks")
    write_start(root, pretrained(positions=32))
    (root / "conf/tiny/finetune").mkdir(parents=True)
    (root / "conf/tiny/finetune/names.yaml").write_text(yaml.safe_dump(SETTINGS))
    Run(root, "finetune/names").run("cpu")
    return root


def _metrics(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "metrics/tiny/finetune/names.json").read_text())
    return found


def test_entities_are_learned_far_above_the_most_frequent_tag_of_each_word(workspace: Path) -> None:
    found = _metrics(workspace)
    assert found["split"] == "test"
    for result in (found, found["others"]["valid"]):
        assert result["score"]["f1"] > 0.95
        assert 0 < result["baselines"]["frequent_tag"]["f1"] < 0.8
    by_type = found["score"]["by_type"]
    assert [one["type"] for one in by_type] == ["LOC", "PER"]
    assert sum(one["num_true"] for one in by_type) == found["score"]["num_true"]


def test_scores_are_those_of_the_file_of_predictions(workspace: Path) -> None:
    text = (workspace / "metrics/tiny/predictions/finetune/names/test.conll").read_text()
    rows = [[line.split(" ") for line in part.split("\n")] for part in text.removesuffix("\n\n").split("\n\n")]
    true, predicted = ([[row[column] for row in one] for one in rows] for column in (1, 2))
    truth = read_tagged(workspace / "data/tiny/prepared/tasks/names/test.jsonl")
    assert [(tuple(row[0] for row in one), tuple(tags)) for one, tags in zip(rows, true, strict=True)] == [
        (one.words, one.tags) for one in truth
    ]
    numbers = counts(predicted, true)
    score = _metrics(workspace)["score"]
    assert score["precision"] == pytest.approx(numbers["right"].total() / numbers["found"].total())
    assert score["recall"] == pytest.approx(numbers["right"].total() / numbers["wanted"].total())
    assert score["num_true"] == numbers["wanted"].total() > 120


def test_long_sentences_are_counted_and_lose_no_word(workspace: Path) -> None:
    found, folder = _metrics(workspace), workspace / "data/tiny/prepared/tasks/names"
    for split, count in SIZES.items():
        lengths = [len(one.words) for one in read_tagged(folder / f"{split}.jsonl")]
        assert found["num_texts"][split] == count == len(lengths)
        assert found["num_words"][split] == sum(lengths)
        assert found["num_split"][split] == sum(length > 10 for length in lengths) >= count // 10
        assert found["num_shortened_words"][split] == found["num_unreadable_words"][split] == 0


def test_samples_show_the_entities_in_their_sentences(workspace: Path) -> None:
    samples = json.loads((workspace / "metrics/tiny/samples/finetune/names.json").read_text())
    first = read_tagged(workspace / "data/tiny/prepared/tasks/names/test.jsonl")[0]
    assert len(samples) == 20 and samples[0]["text"] == " ".join(first.words)
    kind, start, stop = read_tags(first.tags, "iob2")[0]
    assert f"[{kind} {' '.join(first.words[start:stop])}]" in samples[0]["label"]
    assert sum(one["label"] == one["prediction"] for one in samples) > 15


@torch.no_grad()
def test_transformers_opens_the_folder_with_our_logits_and_the_tags_as_labels(workspace: Path) -> None:
    folder = workspace / "models/tiny/finetune/names"
    found = load_model(folder)
    ours = token_classifier_from_huggingface(found.config, found.state).eval()
    data = untagged_examples([WORDS[:5], WORDS[5:14]], tokenizer(), max_length=12)
    batch = data.collate(np.arange(2), 0)
    theirs: Any = BertForTokenClassification.from_pretrained(folder)
    expected = theirs(
        input_ids=batch.input_ids, token_type_ids=batch.token_type_ids, attention_mask=batch.attention_mask.long()
    ).logits[batch.attention_mask]
    assert expected.std() > 0.1
    scores = ours(batch.input_ids, batch.token_type_ids, batch.attention_mask)[batch.attention_mask]
    assert_close(scores, expected, atol=1e-4, rtol=0)
    targets = torch.where(batch.is_target, batch.labels, -100)
    loss = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), labels=targets).loss
    term = token_cross_entropy(scores[batch.is_target[batch.attention_mask]], batch.labels[batch.is_target])
    assert_close(term.loss_sum / term.num_targets, loss, atol=1e-4, rtol=0)
    assert theirs.config.id2label == dict(enumerate(["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]))


def test_the_folder_tags_texts_as_the_stage_was_scored(workspace: Path) -> None:
    model = open_model(workspace / "models/tiny/finetune/names")
    assert isinstance(model, Tagger)
    truth = read_tagged(workspace / "data/tiny/prepared/tasks/names/test.jsonl")
    tags = [
        write_tags(found.entities, len(one.words), "iob2")
        for one, found in zip(truth, model.tag([one.words for one in truth]), strict=True)
    ]
    assert tagging_score(tags, [one.tags for one in truth]).total.f1 == _metrics(workspace)["score"]["f1"]
    kind, start, stop = read_tags(truth[1].tags, "iob2")[0]
    (found,) = model.find([" ".join(truth[1].words).capitalize() + "."])
    assert (found[0].kind, found[0].text.lower()) == (kind, " ".join(truth[1].words[start:stop]))


def test_the_folder_tags_sentences_longer_than_its_rows_as_the_stage_did(workspace: Path) -> None:
    model = open_model(workspace / "models/tiny/finetune/names")
    assert isinstance(model, Tagger)
    text = (workspace / "metrics/tiny/predictions/finetune/names/test.conll").read_text()
    rows = [[line.split(" ") for line in part.split("\n")] for part in text.removesuffix("\n\n").split("\n\n")]
    long = [row for row in rows if len(row) > 10]
    sentences = [[word for word, _, _ in row] for row in long]
    predicted = [tuple(sorted(entities([tag for _, _, tag in row]), key=lambda one: one.start)) for row in long]
    found = model.tag(sentences)
    assert [one.entities for one in found] == predicted

    def probabilities(length: int) -> list[float]:
        other = Tagger(model.model, model.tokenizer, labels=model.labels, max_length=length)
        return [value for one in other.tag(sentences) for value in one.probabilities]

    # The tags are learned so well that rows as long as the positions show in the probabilities alone.
    given = [value for one in found for value in one.probabilities]
    assert given == pytest.approx(probabilities(SETTINGS["max_length"]), abs=1e-6)
    assert given != pytest.approx(probabilities(model.model.encoder.config.max_length), abs=1e-3)


def test_the_opened_task_is_what_the_stage_asks_for(workspace: Path) -> None:
    task = open_tagging(workspace / "data/tiny/prepared/tasks/names", tokenizer(), max_length=12)
    assert isinstance(task, OpenedTask)


def tagger(num_labels: int = 5) -> TokenClassifier:
    torch.manual_seed(3)
    shape = BertConfig(
        vocab_size=tokenizer().vocab_size, d_model=16, num_layers=1, num_heads=2, d_ff=32, max_length=16, dropout=0.3
    )
    model = TokenClassifier(Bert(shape), num_labels=num_labels, dropout=0.3)
    spread(model)
    return model


def opened(sentence: Tagged, *, max_length: int) -> TaggingTask:
    """A task of one sentence."""
    labels = iob2_tags(["LOC", "PER"])
    data = tagging_examples([sentence], tokenizer(), labels=labels, max_length=max_length)
    return TaggingTask(labels, {"train": [sentence]}, {"train": data}, tokenizer().pad_id)


def test_the_loss_is_the_mean_over_words_however_they_are_cut_into_rows() -> None:
    words = tuple(WORDS[:9])
    tags = ("O", "B-LOC", "I-LOC", "O", "B-PER", "O", "O", "B-LOC", "O")
    task = opened(Tagged("a:1", words, tags), max_length=11)
    model = tagger().eval()
    (term,) = task.module(model, TRAINING).objective(task.train.collate(np.array([0]), 0))
    (probabilities,) = predict(model, task.train)
    expected = [-np.log(probabilities[i, task.labels.index(tag)]) for i, tag in enumerate(tags)]
    assert term.num_targets == 9 == task.train.sizes(0).num_targets["loss"].sum()
    assert float(term.loss_sum.detach()) == pytest.approx(sum(expected), rel=1e-4)
    cut = opened(Tagged("a:1", words, tags), max_length=7)
    batch = cut.train.collate(np.arange(len(cut.train.windows)), 0)
    (term,) = cut.module(model, TRAINING).objective(batch)
    assert len(cut.train.windows) > 1 and term.num_targets == 9


def test_predictions_stand_at_their_words_and_do_not_depend_on_their_batch() -> None:
    model = tagger().train()
    some = [WORDS[i : i + 1 + i % 9] for i in range(12)] + [[], WORDS]
    found = predict(model, untagged_examples(some, tokenizer(), max_length=16))
    assert model.training
    assert [one.shape for one in found] == [(len(words), 5) for words in some]
    for words, rows in zip(some, found, strict=True):
        (alone,) = predict(model, untagged_examples([words], tokenizer(), max_length=16))
        np.testing.assert_allclose(rows, alone, atol=1e-5)
        np.testing.assert_allclose(rows.sum(-1), 1.0, atol=1e-5)
    whole = untagged_examples([WORDS[:5]], tokenizer(), max_length=16)
    batch = whole.collate(np.array([0]), 0)
    with torch.no_grad():
        scores = model.eval()(batch.input_ids, batch.token_type_ids, batch.attention_mask)[0, 1:6]
    np.testing.assert_allclose(found_of(model, WORDS[:5]), scores.softmax(-1).numpy(), atol=1e-5)


def found_of(model: TokenClassifier, words: list[str]) -> np.ndarray:
    return predict(model, untagged_examples([words], tokenizer(), max_length=16))[0]


def test_the_likeliest_tag_is_chosen_for_each_word() -> None:
    rows = np.array([[0.2, 0.5, 0.3], [0.4, 0.1, 0.5]], dtype=np.float32)
    assert best_tags(rows, ("O", "B-A", "I-A")) == ["B-A", "I-A"]


def test_rows_for_conlleval_have_no_space_within_a_word() -> None:
    sentence = Tagged("a:1", ("New York", "\u00a0", "x"), ("B-LOC", "O", "O"))
    assert conll_rows([sentence], [["O", "O", "B-LOC"]]) == "New_York B-LOC O\n_ O O\nx O B-LOC\n\n"


def test_a_folder_of_another_task_and_a_tag_of_another_type_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "task.json", {"kind": "glue", "name": "CoLA"})
    with pytest.raises(ValueError, match=r"task.json: expected a task of the kind 'tagging', found {'kind': 'glue'"):
        open_tagging(tmp_path, tokenizer(), max_length=12)
    write_json(tmp_path / "task.json", {"kind": "tagging", "types": ["LOC"]})
    write_records(tmp_path / "train.jsonl", [Tagged("train.txt:1", ("amber",), ("B-LOC",))])
    write_records(tmp_path / "valid.jsonl", [Tagged("valid.txt:8", ("amber", "birch"), ("O", "B-PER"))])
    with pytest.raises(ValueError, match=r"valid.jsonl: valid.txt:8, word 2: tag 'B-PER' is not allowed; allowed are"):
        open_tagging(tmp_path, tokenizer(), max_length=12)
