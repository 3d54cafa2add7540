"""The stage finetune with networks beside BERT: each learns planted opinions, and its folder answers as it did."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close
from transformers import GPT2ForSequenceClassification

from pipeline.artifacts import load_model
from pipeline.config import load
from pipeline.data.examples.classification import LabelledText, unlabelled_examples
from pipeline.data.records import Rated, read_rows, write_records
from pipeline.inference.handover import save_gpt
from pipeline.inference.models import Classifier, open_model
from pipeline.inference.word_folder import save_words
from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.bilstm import AttentionPooling, BiLSTM, EndsPooling
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.huggingface.text_classifiers import bilm_to_huggingface, text_classifier_from_huggingface
from pipeline.models.text_encoders import BiLMEncoder, GPTEncoder, TextEncoder
from pipeline.stages.finetune import FinetuneConfig, build_network
from pipeline.stages.finetune_networks import start_from_vectors
from pipeline.stages.finetune_sources import POLARITIES
from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe
from pipeline.text.words import Vocabulary
from tests.folders import save_folder
from tests.foundations.chain import Run
from tests.stages.grammar import WORDS
from tests.stages.test_finetune import CONFIG, POLARITY, RATING, SPLITS, pretrained, rated, tokenizer, write_start
from tests.training.harness import Workspace, snapshot

LSTM = {"kind": "bilstm", "d_embedding": 16, "d_hidden": 16, "num_layers": 1}
NETWORKS: dict[str, dict[str, Any]] = {
    "max": {"network": LSTM | {"pooling": "max"}, "start": "random"},
    "last": {"network": LSTM | {"pooling": "last", "num_layers": 2}, "start": "random"},
    "attention": {"network": LSTM | {"pooling": "attention"}, "start": "random", "dropout": 0.1},
    "gpt": {"network": {"kind": "gpt"}, "start": "pretrained"},
    "bilm": {"network": {"kind": "bilm", "d_hidden": 16, "num_layers": 1, "pooling": "max"}, "start": "pretrained"},
}
VALUE = "gpt-value"
"""A GPT that says a value: its folder must not be taken for a reward model's."""


def bpe() -> Tokenizer:
    """Byte-level BPE in which nearly every word is one token."""
    return train_byte_bpe([" ".join(WORDS)] * 9, vocab_size=420)


def write_language_models(root: Path) -> None:
    """The folders of pretrain_gpt and pretrain_bilm."""
    torch.manual_seed(0)
    trained, models = bpe(), root / "models/tiny"
    shape = GPTConfig(vocab_size=trained.vocab_size, d_model=32, num_layers=1, num_heads=2, max_length=32)
    save_gpt(models / "pretrain_gpt", GPT(shape), trained)
    both = BidirectionalLM(
        BiLMConfig(vocab_size=trained.vocab_size, d_model=12, d_hidden=12, num_layers=2, dropout=0.5)
    )
    save_folder(models / "pretrain_bilm", bilm_to_huggingface(both, token_ids={}), trained)


def long_texts() -> list[Rated]:
    """Texts of which a task that reads 16 tokens does not see the end."""
    random = np.random.default_rng(9)
    return [
        Rated(f"long-{i}", " ".join(random.choice(WORDS, 24)), mean, (round(mean),), "film", f"long-{i}")
        for i, mean in enumerate((-2.0, 2.0) * 20)
    ]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the stage ran with each network."""
    code = snapshot(tmp_path_factory.mktemp("code"))
    root = tmp_path_factory.mktemp("networks") / "workspace"
    Workspace(root, code, module="", config="conf/tiny/")
    for split, count in SPLITS.items():
        texts = rated(len(split) + count, count)
        write_records(
            root / f"data/tiny/prepared/rated/{split}.jsonl", texts + long_texts() if split == "valid" else texts
        )
    write_start(root, pretrained())
    write_language_models(root)
    (root / "conf/tiny/finetune").mkdir(parents=True)
    configs = {name: {"task": POLARITY} | changes for name, changes in NETWORKS.items()}
    configs[VALUE] = {"task": RATING} | NETWORKS["gpt"]
    for name, changes in configs.items():
        (root / f"conf/tiny/finetune/{name}.yaml").write_text(yaml.safe_dump(CONFIG | {"max_length": 16} | changes))
        Run(root, f"finetune/{name}").run("cpu")
    return root


def _metrics(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / f"metrics/tiny/finetune/{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_planted_opinions_are_learned_far_above_the_majority(workspace: Path, name: str) -> None:
    found = _metrics(workspace, name)
    # A quarter of its errors: the majority is two thirds of these texts, so that 0.3 above it leaves no error at all.
    assert 1 - found["score"]["accuracy"] < (1 - found["baselines"]["majority"]["accuracy"]) / 4
    assert found["score"]["accuracy"] > 0.9


def test_a_gpt_learns_values_too(workspace: Path) -> None:
    assert _metrics(workspace, VALUE)["score"]["pearson"] > 0.9


@pytest.mark.parametrize("split", ["test", "valid"])
@pytest.mark.parametrize("name", [*NETWORKS, VALUE])
def test_the_folder_answers_as_the_stage_predicted(workspace: Path, name: str, split: str) -> None:
    model = open_model(workspace / "models/tiny/finetune" / name)
    assert isinstance(model, Classifier)
    rows = [row for row in read_rows(workspace / f"data/tiny/prepared/rated/{split}.jsonl") if row["domain"] == "film"]
    task = RATING if name == VALUE else POLARITY
    texts = [row["text"] for row in rows if abs(row["mean"]) >= task.get("min_strength", 0.0)]
    lines = (workspace / f"metrics/tiny/predictions/finetune/{name}/{split}.tsv").read_text().splitlines()[1:]
    predicted = [line.split("\t")[2] for line in lines]
    found = model.classify(texts)
    assert sum(one.is_cut for one in found) == _metrics(workspace, name)["num_shortened"][split]
    assert sum(one.is_cut for one in found) == (len(long_texts()) if split == "valid" else 0)
    if name == VALUE:
        np.testing.assert_allclose([one.value for one in found], [float(value) for value in predicted], atol=1e-4)
        assert {one.label for one in found} == {"rating"}
    else:
        assert [one.label for one in found] == predicted
        assert set(predicted) == set(POLARITIES)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt", VALUE])
def test_transformers_opens_the_folder_of_a_gpt_with_our_scores(workspace: Path, name: str) -> None:
    folder = workspace / "models/tiny/finetune" / name
    found = load_model(folder)
    ours = text_classifier_from_huggingface(found.config, found.state).eval()
    texts = [LabelledText(one.text, None, "", one.id) for one in rated(5, 12)]
    batch = unlabelled_examples(texts, load_tokenizer(folder), max_length=16).collate(np.arange(12), 0)
    theirs: Any = GPT2ForSequenceClassification.from_pretrained(folder)
    expected = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits
    assert expected.std() > 0.1
    assert_close(ours(batch.input_ids, batch.token_type_ids, batch.attention_mask), expected, atol=1e-4, rtol=0)


def test_the_frozen_language_model_comes_out_as_it_went_in(workspace: Path) -> None:
    before = load_model(workspace / "models/tiny/pretrain_bilm").state
    after = load_model(workspace / "models/tiny/finetune/bilm").state
    for name, tensor in before.items():
        if not name.startswith("head."):
            assert torch.equal(after[f"encoder.language_model.{name}"], tensor), name
    assert after["encoder.mix.scores"].abs().max() > 0


def _config(name: str, **changes: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate(CONFIG | {"task": POLARITY} | NETWORKS[name] | changes)


def _encoder(root: Path, name: str, **changes: Any) -> TextEncoder:
    stage = {"gpt": "pretrain_gpt", "bilm": "pretrain_bilm"}.get(name, "pretrain_bert")
    folder = root / "models/tiny" / stage
    torch.manual_seed(7)
    return build_network(folder, _config(name, **changes), load_tokenizer(folder))[0]


@pytest.mark.parametrize("name", ["gpt", "bilm"])
def test_pretrained_starts_from_the_weights_of_the_folder_and_random_from_the_same_shape(
    workspace: Path, name: str
) -> None:
    tuned, fresh = (_encoder(workspace, name, start=start, dropout=0.25) for start in ("pretrained", "random"))
    assert tuned.config == fresh.config
    assert tuned.config.dropout == 0.25
    parts: list[GPT | BidirectionalLM] = []
    for one in (tuned, fresh):
        assert isinstance(one, GPTEncoder | BiLMEncoder)
        parts.append(one.gpt if isinstance(one, GPTEncoder) else one.language_model)
    saved = load_model(workspace / f"models/tiny/pretrain_{name}").state
    own = "transformer.wte.weight" if name == "gpt" else "token_embedding.weight"
    assert torch.equal(parts[0].token_embedding.weight, saved[own])
    assert not torch.equal(parts[1].token_embedding.weight, saved[own])


def test_tokens_that_are_words_begin_with_their_vectors_and_others_at_random(workspace: Path, tmp_path: Path) -> None:
    words, ids = ("amber", "zephyr", "nowhere"), tokenizer()
    matrix = np.array([[3.0, 4.0], [0.0, 1.0], [9.0, 9.0]], dtype=np.float32)
    save_words(tmp_path / "vectors", Vocabulary(words, np.array([3, 2, 1])), matrix, method="glove")
    network = LSTM | {"pooling": "max", "d_embedding": 2, "vectors": str(tmp_path / "vectors")}
    given, random = (
        _encoder(workspace, "max", network=one) for one in (network, {**network, "vectors": ""})
    )  # the same seed
    assert isinstance(given, BiLSTM) and isinstance(random, BiLSTM)
    rows = [ids.encode(word)[0] for word in words[:2]]
    # Together of unit variance: the mean square of 3, 4, 0 and 1 is 6.5.
    assert_close(given.token_embedding.weight[rows], torch.from_numpy(matrix[:2]) / 6.5**0.5)
    others = [i for i in range(ids.vocab_size) if i not in rows]
    assert torch.equal(given.token_embedding.weight[others], random.token_embedding.weight[others])
    with pytest.raises(ValueError, match=r"d_embedding: found 3, the vectors of .* have 2"):
        start_from_vectors(torch.zeros(ids.vocab_size, 3), ids, tmp_path / "vectors")
    save_words(tmp_path / "strange", Vocabulary(("qqq",), np.array([1])), matrix[:1], method="glove")
    with pytest.raises(ValueError, match="strange: none of its 1 words is a token of the tokenizer"):
        start_from_vectors(torch.zeros(ids.vocab_size, 2), ids, tmp_path / "strange")


def test_what_a_network_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="start: a bilstm has no pretrained weights, allowed is random"):
        _config("max", start="pretrained")
    for name in ("max", "bilm"):
        with pytest.raises(ValueError, match=r"attention_dropout is for bert and gpt, found 0\.1 for bil"):
            _config(name, attention_dropout=0.1)
    for name in NETWORKS:
        for kind in ("tagging", "questions"):
            with pytest.raises(ValueError, match=f"network: a task of {kind} is learned by bert alone, found"):
                _config(name, task={"kind": kind, "name": "mine"})


def test_a_folder_of_another_network_and_texts_beyond_the_context_are_refused(workspace: Path) -> None:
    bert, gpt = (workspace / "models/tiny" / stage for stage in ("pretrain_bert", "pretrain_gpt"))
    with pytest.raises(ValueError, match=r"pretrain_bert: config\.json: model_type is 'bert', only 'gpt2'"):
        build_network(bert, _config("gpt"), tokenizer())
    with pytest.raises(ValueError, match=r"pretrain_gpt: config\.json: model_type is 'gpt2', only 'pipeline-bilm'"):
        build_network(gpt, _config("bilm"), bpe())
    with pytest.raises(ValueError, match="max_length: 33 is longer than the 32 positions of"):
        build_network(gpt, _config("gpt", max_length=33), bpe())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_configuration_makes_the_network_that_it_names(workspace: Path, name: str) -> None:
    found = _encoder(workspace, name)
    wanted = {"gpt": GPTEncoder, "bilm": BiLMEncoder}.get(name, BiLSTM)
    assert isinstance(found, wanted)


def test_the_poolings_of_folders_are_those_of_their_configurations(workspace: Path) -> None:
    for name, pooling in (("last", EndsPooling), ("attention", AttentionPooling)):
        found = load_model(workspace / "models/tiny/finetune" / name)
        model = text_classifier_from_huggingface(found.config, found.state)
        assert isinstance(model.pooler, pooling)
        assert model.encoder.config.max_length == 16


def test_a_configuration_file_names_the_kinds_of_networks_for_an_unknown_one(tmp_path: Path) -> None:
    path = tmp_path / "conf/tiny/finetune/one.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(CONFIG | {"task": POLARITY, "network": {"kind": "cnn"}}))
    with pytest.raises(ValueError, match=r"network.*'bert', 'gpt', 'bilstm', 'bilm'"):
        load(path, FinetuneConfig)
