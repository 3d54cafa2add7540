"""The stage finetune: planted opinions are learned, and nothing of an example is lost without being counted."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close
from transformers import BertForSequenceClassification

from pipeline.artifacts import load_model
from pipeline.config import load
from pipeline.data.examples.classification import LabelledText, classification_examples
from pipeline.data.records import Rated, write_records
from pipeline.evaluation.bag_of_words import bag_of_words_classes
from pipeline.layout import Layout
from pipeline.models.bert import Bert, BertConfig, BertForPretraining
from pipeline.models.heads import SequenceClassifier
from pipeline.models.huggingface.bert import (
    bert_encoder_from_huggingface,
    bert_to_huggingface,
    sequence_classifier_from_huggingface,
)
from pipeline.stages.finetune import FinetuneConfig, build_encoder
from pipeline.stages.finetune_sources import POLARITIES, PolarityTask, rated_texts
from pipeline.stages.finetune_texts import Target, TextTask, open_texts, predict
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_wordpiece
from tests.folders import save_folder
from tests.foundations.chain import Run
from tests.parity.hf import spread
from tests.stages.grammar import WORDS
from tests.training.harness import ROOT, Workspace, change_yaml, snapshot

POLARITY = {"kind": "polarity", "domains": ["film"], "min_strength": 1.0}
RATING = {"kind": "rating", "domains": ["film"]}
CONFIG: dict[str, Any] = {
    "training": {
        "seed": 1,
        "batching": {"kind": "examples", "examples_per_step": 32},
        "duration": {"kind": "steps", "num_steps": 120},
        "optimizer": {"lr": 0.01, "betas": [0.9, 0.98]},
        "schedule": {"kind": "linear", "num_warmup_steps": 5},
        "validate_every": 60,
        "checkpoint_every": 60,
    },
    "start": "pretrained",
    "max_length": 9,
    "dropout": 0.0,
}
SPLITS = {"train": 300, "valid": 30, "test": 60}
VALENCE = dict(zip(WORDS, np.linspace(-4, 4, len(WORDS)).round(2).tolist(), strict=True))


def rated(seed: int, count: int) -> list[Rated]:
    """Short texts whose mean rating is the mean valence of their words; every tenth is of another domain and too long.

    The words of one text are close in valence, so that texts of every strength occur.
    """
    random = np.random.default_rng(seed)
    found = []
    for i in range(count):
        start = random.integers(0, len(WORDS) - 4)
        words = random.choice(WORDS[start : start + 4], 12 if i % 10 == 9 else 5)
        mean = round(float(np.mean([VALENCE[word] for word in words])), 3)
        domain = "news" if i % 10 == 9 else "film"
        found.append(Rated(f"{seed}-{i}", " ".join(words), mean, (round(mean),), domain, f"{seed}-{i}"))
    return found


def tokenizer() -> Tokenizer:
    """WordPiece in which every word is one token."""
    return train_wordpiece([" ".join(WORDS)] * 9, vocab_size=220)


def pretrained(*, positions: int = 12) -> BertForPretraining:
    """The start of every training here, pretrained with dropouts of its own."""
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=tokenizer().vocab_size,
        d_model=32,
        num_layers=1,
        num_heads=2,
        d_ff=48,
        max_length=positions,
        dropout=0.2,
        attention_dropout=0.3,
    )
    return BertForPretraining(shape).eval()


def write_start(root: Path, model: BertForPretraining) -> Path:
    """The folder of pretrain_bert below `root`."""
    return save_folder(root / "models/tiny/pretrain_bert", bert_to_huggingface(model, pad_token_id=0), tokenizer())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the stage ran on each task."""
    code = snapshot(tmp_path_factory.mktemp("code"))
    root = tmp_path_factory.mktemp("finetune") / "workspace"
    Workspace(root, code, module="", config="conf/tiny/")
    for split, count in SPLITS.items():
        write_records(root / f"data/tiny/prepared/rated/{split}.jsonl", rated(len(split) + count, count))
    write_start(root, pretrained())
    (root / "conf/tiny/finetune").mkdir(parents=True)
    # With a decay, which moves every vector that is trained.
    training = CONFIG["training"] | {"optimizer": CONFIG["training"]["optimizer"] | {"weight_decay": 0.01}}
    for name, task in {"polarity": POLARITY, "rating": RATING}.items():
        settings = CONFIG | {"task": task, "training": training}
        (root / f"conf/tiny/finetune/{name}.yaml").write_text(yaml.safe_dump(settings))
        Run(root, f"finetune/{name}").run("cpu")
    return root


def build_model(folder: Path, config: FinetuneConfig, *, num_labels: int) -> SequenceClassifier:
    """The network of a configuration, as the stage builds it."""
    classes = POLARITIES[:num_labels] if num_labels > 1 else ()
    task = TextTask(Target(classes), {}, {}, {"pad_token_id": 0})
    return task.network(*build_encoder(folder, config), dropout=config.dropout)


def opened(texts: list[LabelledText], classes: tuple[str, ...]) -> TextTask:
    """The texts as every split."""
    return open_texts(dict.fromkeys(SPLITS, texts), Target(classes), tokenizer(), max_length=9)


def _metrics(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / f"metrics/tiny/finetune/{name}.json").read_text())
    return found


def test_polarity_is_learned_far_above_the_majority(workspace: Path) -> None:
    found = _metrics(workspace, "polarity")
    assert found["score"]["accuracy"] > found["baselines"]["majority"]["accuracy"] + 0.3
    assert found["score"]["accuracy"] > 0.9


@pytest.mark.parametrize("name", ["polarity", "taken-to-pieces"])
def test_token_vectors_that_no_text_reads_are_saved_as_they_were(workspace: Path, name: str) -> None:
    """Also where two ranks of DeepSpeed have a part of every parameter each, and hand them to a copy of the model."""
    if name == "taken-to-pieces":
        config = workspace / f"conf/tiny/finetune/{name}.yaml"
        shutil.copy(workspace / "conf/tiny/finetune/polarity.yaml", config)
        change_yaml(config, {"training.duration.num_steps": 10, "training.validate_every": 10})
        Run(workspace, f"finetune/{name}").run("zero3_cpu")
    started, ended = (
        load_model(workspace / "models/tiny" / name).state["bert.embeddings.word_embeddings.weight"]
        for name in ("pretrain_bert", f"finetune/{name}")
    )
    read = torch.zeros(len(started), dtype=torch.bool)
    read[[id for word in WORDS for id in tokenizer().encode(word)]] = True
    read[[tokenizer().id_of(role) for role in ("pad", "cls", "sep")]] = True
    assert 20 < int(read.sum()) < len(read) and torch.equal(started[~read], ended[~read])
    # Words of middle valence stand in no text that is polar enough.
    assert (started != ended).any(1)[read].float().mean() > 0.7


def test_ratings_are_learned_to_a_high_correlation(workspace: Path) -> None:
    score = _metrics(workspace, "rating")["score"]
    assert score["pearson"] > 0.9 and score["spearman"] > 0.9


def test_texts_are_counted_after_domain_and_strength_are_chosen(workspace: Path) -> None:
    expected = {split: [one for one in rated(len(split) + n, n) if one.domain == "film"] for split, n in SPLITS.items()}
    assert _metrics(workspace, "rating")["num_texts"] == {split: len(texts) for split, texts in expected.items()}
    strong = {split: sum(abs(one.mean) >= 1.0 for one in texts) for split, texts in expected.items()}
    assert _metrics(workspace, "polarity")["num_texts"] == strong
    assert strong["test"] < len(expected["test"])


def test_the_baselines_are_those_of_the_same_texts(workspace: Path) -> None:
    layout = Layout.of(Path("conf/tiny/finetune/polarity.yaml"))
    task = PolarityTask.model_validate(POLARITY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        train, test = (rated_texts(layout, split, task) for split in ("train", "test"))
    labels = {name: i for i, name in enumerate(POLARITIES)}
    known, asked = (np.array([labels[one.label] for one in texts]) for texts in (train, test))
    words = bag_of_words_classes([one.text for one in train], known, [one.text for one in test])
    found = _metrics(workspace, "polarity")["baselines"]
    assert found["bag_of_words"]["accuracy"] == pytest.approx((words == asked).mean())
    assert found["majority"]["accuracy"] == pytest.approx((asked == np.bincount(known).argmax()).mean())


@torch.no_grad()
@pytest.mark.parametrize("name", ["polarity", "rating"])
def test_transformers_opens_the_folder_with_our_logits(workspace: Path, name: str) -> None:
    folder = workspace / "models/tiny/finetune" / name
    found = load_model(folder)
    ours = sequence_classifier_from_huggingface(found.config, found.state).eval()
    texts = [LabelledText(one.text, None, "negative", one.id) for one in rated(5, 12)]
    data = classification_examples(texts, tokenizer(), classes=POLARITIES, max_length=9)
    batch = data.collate(np.arange(12), 0)
    theirs: Any = BertForSequenceClassification.from_pretrained(folder)
    expected = theirs(
        input_ids=batch.input_ids, token_type_ids=batch.token_type_ids, attention_mask=batch.attention_mask.long()
    ).logits
    assert expected.std() > 0.1
    assert_close(ours(batch.input_ids, batch.token_type_ids, batch.attention_mask), expected, atol=1e-4, rtol=0)
    names = POLARITIES if name == "polarity" else ("rating",)
    assert tuple(theirs.config.id2label[i] for i in range(len(names))) == names


def test_pretrained_starts_from_the_weights_of_the_folder_and_random_from_the_same_shape(tmp_path: Path) -> None:
    folder = write_start(tmp_path, pretrained())
    found = load_model(folder)
    encoder, pooler = bert_encoder_from_huggingface(found.config, found.state)
    assert pooler is not None
    config = FinetuneConfig.model_validate(CONFIG | {"task": POLARITY, "dropout": 0.25})
    tuned = build_model(folder, config, num_labels=2)
    for part, wanted in ((tuned.encoder, encoder), (tuned.pooler, pooler)):
        assert all(torch.equal(a, b) for a, b in zip(part.parameters(), wanted.parameters(), strict=True))
    fresh = build_model(folder, config.model_copy(update={"start": "random"}), num_labels=2)
    assert fresh.encoder.config == tuned.encoder.config
    assert isinstance(fresh.encoder, Bert)
    assert tuned.encoder.config.dropout == tuned.dropout.p == fresh.encoder.dropout.p == 0.25
    for part, other in ((fresh.encoder, encoder), (fresh.pooler, pooler)):
        matrices = [pair for pair in zip(part.parameters(), other.parameters(), strict=True) if pair[0].ndim == 2]
        assert matrices and not any(torch.equal(a, b) for a, b in matrices)


@pytest.mark.parametrize("start", ["pretrained", "random"])
def test_training_is_as_random_as_its_own_dropouts_say_whatever_the_pretraining_had(tmp_path: Path, start: str) -> None:
    folder = write_start(tmp_path, pretrained())
    config = FinetuneConfig.model_validate(CONFIG | {"task": POLARITY, "start": start})
    texts = [LabelledText(text.text, None, "negative", text.id) for text in rated(5, 9)]
    batch = classification_examples(texts, tokenizer(), classes=POLARITIES, max_length=9).collate(np.arange(9), 0)
    for dropouts in ({}, {"dropout": 0.1}, {"attention_dropout": 0.1}):
        model = build_model(folder, config.model_copy(update=dropouts), num_labels=2).train()
        spread(model)
        first, second = (model(batch.input_ids, batch.token_type_ids, batch.attention_mask) for _ in range(2))
        assert torch.equal(first, second) == (not dropouts), dropouts


def test_texts_that_lose_tokens_are_counted() -> None:
    lengths = [3, 7, 8, 9, 20]  # with [CLS] and [SEP], nine places hold seven tokens
    texts = [LabelledText(" ".join(WORDS[:n]), None, "1.5", "here") for n in lengths]
    data = opened(texts, ()).train
    assert data.num_shortened == 3
    assert [len(row) for row in data.input_ids] == [5, 9, 9, 9, 9]


def test_predictions_stand_in_the_order_of_the_examples_and_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    task = FinetuneConfig.model_validate(CONFIG | {"task": RATING})
    model = build_model(write_start(tmp_path, pretrained()), task, num_labels=1).eval()
    spread(model)
    texts = [LabelledText(" ".join(WORDS[i : i + 2 + i % 5]), None, "0", "here") for i in range(20)]
    data = opened(texts, ()).train
    alone = [predict(model, opened([text], ()).train)[0] for text in texts]
    assert np.std(alone) > 0.1
    np.testing.assert_allclose(predict(model, data), alone, atol=1e-5)


def test_a_label_that_is_no_class_or_no_number_is_refused_with_its_place() -> None:
    wrong = [LabelledText("amber", None, "neutral", "rated.jsonl:7")]
    with pytest.raises(ValueError, match=r"rated.jsonl:7: label 'neutral' is not allowed; allowed are \['negative'"):
        opened(wrong, POLARITIES)
    with pytest.raises(ValueError, match=r"rated.jsonl:7: label 'neutral' is not a number"):
        opened(wrong, ())


def test_domains_without_texts_and_lengths_beyond_the_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_records(Path("data/tiny/prepared/rated/train.jsonl"), rated(1, 20))
    layout = Layout.of(Path("conf/tiny/finetune/polarity.yaml"))
    none = PolarityTask.model_validate(POLARITY | {"domains": ["tweet"]})
    with pytest.raises(ValueError, match=r"train.jsonl: no texts of the domains \['tweet'\] for the task polarity"):
        rated_texts(layout, "train", none)
    long = FinetuneConfig.model_validate(CONFIG | {"task": POLARITY, "max_length": 13})
    with pytest.raises(ValueError, match="max_length: 13 is longer than the 12 positions of"):
        build_model(write_start(tmp_path, pretrained()), long, num_labels=2)


@pytest.mark.parametrize("profile", ["tiny", "cpu"])
@pytest.mark.parametrize("task", ["polarity", "rating"])
def test_the_same_network_from_random_weights_differs_in_its_start_alone(profile: str, task: str) -> None:
    tuned, fresh = (load(ROOT / f"conf/{profile}/finetune/{task}{end}.yaml", FinetuneConfig) for end in ("", "-random"))
    assert (tuned.start, fresh.start) == ("pretrained", "random")
    assert tuned.task.kind == task
    assert fresh.model_copy(update={"start": "pretrained"}) == tuned
