"""The stage pretrain_bilm: both directions of a circle of words are learned, and losses are by their formula."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F
from torch.testing import assert_close

from pipeline.artifacts import load_model
from pipeline.config import load
from pipeline.data.examples.pieces import DocumentPieces
from pipeline.data.token_arrays import in_memory
from pipeline.evaluation.perplexity import unigram_entropy
from pipeline.inference.both_ways import both_ways_loss
from pipeline.inference.models import BothWaysScorer, open_model
from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.huggingface.text_classifiers import bilm_from_huggingface
from pipeline.stages.pretrain_bilm import PretrainBiLMConfig, predicted_tokens
from tests.stages import grammar
from tests.training.harness import ROOT, Workspace, snapshot

CONFIG = {
    "training": {
        "seed": 1,
        "batching": {"kind": "examples", "examples_per_step": 16},
        "duration": {"kind": "steps", "num_steps": 200},
        "optimizer": {"lr": 0.02, "betas": [0.9, 0.98]},
        "schedule": {"kind": "linear", "num_warmup_steps": 5},
        "validate_every": 100,
        "checkpoint_every": 100,
    },
    "model": {"d_model": 24, "d_hidden": 32, "num_layers": 2, "dropout": 0.1},
    "max_length": 24,
    "num_valid_pieces": 8,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace in which the stage ran."""
    code = snapshot(tmp_path_factory.mktemp("code"))
    workspace = Workspace(
        tmp_path_factory.mktemp("pretrain") / "workspace",
        code,
        module="pipeline.stages.pretrain_bilm",
        config="conf/tiny/pretrain_bilm.yaml",
    )
    grammar.write_data(workspace.root, with_tokens=True)
    (workspace.root / "conf/tiny").mkdir()
    (workspace.root / "conf/tiny/pretrain_bilm.yaml").write_text(yaml.safe_dump(CONFIG))
    workspace.run("cpu")
    return workspace.root


def _test_scores(root: Path) -> Any:
    return json.loads((root / "metrics/tiny/pretrain_bilm.json").read_text())["test"]


def _test_ids() -> list[list[int]]:
    tokenizer = grammar.tokenizer()
    return [
        [tokenizer.bos_id, *tokenizer.encode(one.text), tokenizer.eos_id] for one in grammar.documents(132, 12)
    ]  # fmt: skip


def test_both_directions_learn_the_circle_to_a_third_of_the_unigram_entropy(trained: Path) -> None:
    test = _test_scores(trained)
    for direction in ("ahead", "back"):
        assert test[direction]["nats_per_token"] < test[direction]["unigram_entropy"] / 3
        assert test[direction]["perplexity"] == pytest.approx(math.exp(test[direction]["nats_per_token"]))
    assert test["mean"]["nats_per_token"] == pytest.approx(
        (test["ahead"]["nats_per_token"] + test["back"]["nats_per_token"]) / 2
    )


def test_the_entropies_are_those_of_what_each_direction_predicts(trained: Path) -> None:
    documents, test = _test_ids(), _test_scores(trained)
    wanted = {"ahead": [ids[1:] for ids in documents], "back": [ids[:-1] for ids in documents]}
    for direction, predicted in wanted.items():
        tokens = np.concatenate(predicted)
        assert test[direction]["num_tokens"] == len(tokens)
        assert test[direction]["unigram_entropy"] == pytest.approx(unigram_entropy(tokens))


@torch.no_grad()
def test_the_folder_scores_a_text_in_each_direction_as_the_formula_says(trained: Path) -> None:
    folder = trained / "models/tiny/pretrain_bilm"
    scorer = open_model(folder)
    assert isinstance(scorer, BothWaysScorer)
    found = load_model(folder)
    model, texts = bilm_from_huggingface(found.config, found.state).eval(), [grammar.walk(3, 4), grammar.walk(9, 11)]
    for text, (ahead, back) in zip(texts, scorer.score(texts), strict=True):
        ids = torch.tensor([[1, *grammar.tokenizer().encode(text), 2]])
        top = model(ids, torch.ones_like(ids).bool())[-1][0]
        forward, backward = top.chunk(2, dim=1)
        assert ahead == pytest.approx(float(F.cross_entropy(model.logits(forward[:-1]), ids[0, 1:])), abs=1e-5)
        assert back == pytest.approx(float(F.cross_entropy(model.logits(backward[1:]), ids[0, :-1])), abs=1e-5)


def test_padding_and_the_other_rows_of_a_batch_change_no_loss() -> None:
    torch.manual_seed(0)
    model = BidirectionalLM(BiLMConfig(vocab_size=30, d_model=6, d_hidden=6, num_layers=2)).eval()
    random = np.random.default_rng(0)
    documents = [[random.integers(3, 30, count).tolist()] for count in (9, 2, 14)]
    pieces = DocumentPieces(in_memory(documents), length=8, pad_id=0)
    count = len(pieces.sizes(0).lengths)
    whole = both_ways_loss(model, pieces.collate(np.arange(count), 0))
    alone = [both_ways_loss(model, pieces.collate(np.array([i]), 0)) for i in range(count)]
    for direction in (0, 1):
        terms = [one[direction] for one in alone]
        assert whole[direction].num_targets == sum(term.num_targets for term in terms) == 8 + 1 + 13
        assert_close(whole[direction].loss_sum, torch.stack([term.loss_sum for term in terms]).sum())


def test_the_first_token_is_no_target_ahead_and_the_last_none_back() -> None:
    tokens = in_memory([[[1, 5, 6, 2]], [[7]], [[1, 8, 2]]])
    found = predicted_tokens(tokens)
    assert found["ahead"].tolist() == [5, 6, 2, 8, 2]
    assert found["back"].tolist() == [1, 5, 6, 1, 8]


@pytest.mark.parametrize("profile", ["tiny", "cpu", "paper"])
def test_the_configuration_of_every_profile_is_complete(profile: str) -> None:
    assert load(ROOT / f"conf/{profile}/pretrain_bilm.yaml", PretrainBiLMConfig).model.num_layers == 2
