"""The stage pretrain_gpt: it learns a circle of words, and its figures are those of the whole held-out text."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close

from pipeline.config import load
from pipeline.data.examples.windows import EvaluationWindows, TrainingWindows
from pipeline.data.records import Document, write_records
from pipeline.data.token_arrays import in_memory
from pipeline.evaluation.held_out import EvenlySpaced, held_out_loss
from pipeline.inference.handover import open_gpt
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.stages.language_model import HeldOutText, causal_loss, last_bytes, model_loss, texts_by_source
from pipeline.stages.pretrain_gpt import PretrainGPTConfig
from tests.stages import grammar
from tests.training.harness import ROOT, Workspace, snapshot

CONFIG: dict[str, Any] = {
    "training": {
        "seed": 1,
        "batching": {"kind": "examples", "examples_per_step": 8},
        "duration": {"kind": "steps", "num_steps": 80},
        "optimizer": {"lr": 0.01, "betas": [0.9, 0.95]},
        "schedule": {"kind": "linear", "num_warmup_steps": 5},
        "validate_every": 30,
        "checkpoint_every": 30,
    },
    "model": {
        "d_model": 64,
        "num_layers": 1,
        "num_heads": 2,
        "max_length": 64,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "num_valid_windows": 4,
    "evaluation": {"num_context": 16, "ngram_order": 3, "ngram_tokens": 100_000, "prime_bytes": 100_000},
    "few_shot": {
        "num_questions": 20,
        "num_candidates": 4,
        "num_shots": [0, 1],
        "min_words": 2,
        "max_words": 9,
        "seed": 1,
    },
}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code that the stage runs."""
    return snapshot(tmp_path_factory.mktemp("code"))


def workspace(root: Path, code: Path, config: dict[str, Any]) -> Workspace:
    """A workspace with the text of the grammar."""
    made = Workspace(root, code, module="pipeline.stages.pretrain_gpt", config="conf/tiny/pretrain_gpt.yaml")
    grammar.write_data(made.root, with_tokens=True)
    (made.root / "conf/tiny").mkdir()
    (made.root / "conf/tiny/pretrain_gpt.yaml").write_text(yaml.safe_dump(config))
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    """The workspace in which the stage ran."""
    made = workspace(tmp_path_factory.mktemp("pretrain") / "workspace", code, CONFIG)
    made.run("cpu")
    return made.root


def _metrics(root: Path) -> Any:
    return json.loads((root / "metrics/tiny/pretrain_gpt.json").read_text())


def test_the_grammar_is_learned_to_a_fifth_of_the_unigram_entropy(trained: Path) -> None:
    test = _metrics(trained)["test"]
    assert test["model"]["nats_per_token"] < 0.2 * test["unigram"]["nats_per_token"]


def test_the_three_units_and_the_sources_are_cuts_of_one_sum(trained: Path) -> None:
    test = _metrics(trained)["test"]
    text = "".join(one.text + "\n" for one in grammar.documents(132, 12))
    num_tokens = sum(len(grammar.tokenizer().encode(one.text)) + 1 for one in grammar.documents(132, 12))
    for name in ("model", "kneser_ney"):
        score = test[name]
        nats = score["nats_per_token"] * num_tokens
        assert score["num_tokens"] == num_tokens
        assert score["perplexity"] == pytest.approx(math.exp(score["nats_per_token"]))
        assert score["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(text.encode()))
        assert sum(one["nats_per_token"] * one["num_tokens"] for one in score["by_source"].values()) == pytest.approx(
            nats
        )


def test_the_next_sentence_of_the_circle_is_found_far_above_chance(trained: Path) -> None:
    found = _metrics(trained)["few_shot"]["next_sentence"]
    assert found["0_shot"]["chance"] == found["1_shot"]["chance"] == 0.25
    assert found["0_shot"]["accuracy"] >= 0.75
    assert found["0_shot"]["num_questions"] == 20


def test_a_text_that_has_no_questions_is_refused_before_training_and_null_asks_none(tmp_path: Path, code: Path) -> None:
    short = {**CONFIG, "training": {**CONFIG["training"], "duration": {"kind": "steps", "num_steps": 1}}}
    impossible = {**short, "few_shot": {**CONFIG["few_shot"], "min_words": 1000, "max_words": 2000}}
    made = workspace(tmp_path / "workspace", code, impossible)
    outcome = made.run("cpu", expect=(2,))
    assert "error: conf/tiny/pretrain_gpt.yaml: few_shot: questions need neighbouring sentences" in outcome.log
    assert "steps/s" not in outcome.log
    (made.root / "conf/tiny/pretrain_gpt.yaml").write_text(yaml.safe_dump({**short, "few_shot": None}))
    made.run("cpu")
    assert _metrics(made.root).keys() >= {"test"} and "few_shot" not in _metrics(made.root)


def test_the_folder_holds_a_gpt_of_the_configured_shape_with_three_special_ids(trained: Path) -> None:
    folder = trained / "models/tiny/pretrain_gpt"
    opened = open_gpt(folder)
    assert opened.model.config.d_model == 64 and opened.model.config.vocab_size == opened.tokenizer.vocab_size
    config = json.loads((folder / "config.json").read_text())
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (0, 1, 2)


def _model() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=30, d_model=16, num_layers=2, num_heads=2, max_length=24)).eval()


def _documents(*lengths: int) -> list[list[list[int]]]:
    random = np.random.default_rng(0)
    return [[random.integers(3, 30, length).tolist()] for length in lengths]


def _loss_alone(model: GPT, tokens: list[int]) -> torch.Tensor:
    """The summed loss of a piece of a document as a batch of its own."""
    ids = torch.tensor([tokens])
    hidden = model(ids[:, :-1], torch.zeros_like(ids[:, 1:]), torch.arange(ids.size(1) - 1)[None])
    return torch.nn.functional.cross_entropy(model.logits(hidden)[0], ids[0, 1:], reduction="sum")


@torch.no_grad()
def test_the_loss_of_a_training_window_is_the_sum_of_its_documents_alone() -> None:
    """Each token occurs once: the first of a window tells where it begins, and thus where it cuts a document in two."""
    model, tokens = _model(), list(range(3, 27))
    documents = [tokens[:9], tokens[9:14], tokens[14:]]
    windows = TrainingWindows(in_memory([[one] for one in documents]), length=24, seed=1)
    inputs = [token for one in documents for token in one[:-1]]
    for epoch in range(6):
        batch = windows.collate(np.array([0]), epoch)
        first = int(batch.input_ids[0, 0])
        assert batch.input_ids[0].tolist() == inputs[inputs.index(first) :] + inputs[: inputs.index(first)]
        number = next(number for number, one in enumerate(documents) if first in one)
        cut = documents[number].index(first)
        others = [one for other, one in enumerate(documents) if other != number]
        pieces = [documents[number][cut:], *others, documents[number][: cut + 1]]
        found = causal_loss(model, batch)
        assert found.num_targets == 8 + 4 + 9
        alone = sum(_loss_alone(model, piece) for piece in pieces if len(piece) > 1)
        assert_close(found.loss_sum, alone, rtol=1e-5, atol=1e-5)


def test_overlapping_windows_count_every_token_once_and_equal_the_whole_document_where_it_fits() -> None:
    model = _model()
    short, long = (HeldOutText(in_memory(_documents(*sizes)), b"") for sizes in ((20, 24), (150, 40)))
    whole = sum(_loss_alone(model, document[0]).item() for document in _documents(20, 24))
    # With all but one place as context every token sees what precedes it in its document.
    found = model_loss(model, short, num_context=23, pad_id=0)
    assert found.num_targets == 19 + 23
    assert found.loss_sum == pytest.approx(whole, rel=1e-5)
    for num_context in (0, 7, 16):
        assert model_loss(model, long, num_context=num_context, pad_id=0).num_targets == 149 + 39


def test_the_held_out_loss_does_not_depend_on_the_batches() -> None:
    model = _model()
    windows = EvaluationWindows(in_memory(_documents(9, 5, 20, 18, 3, 22)), length=24, num_context=7, pad_id=0)
    sums = [
        held_out_loss(model, windows, lambda batch: causal_loss(model, batch), tokens_per_batch=size).mean
        for size in (1, 50, 1000)
    ]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-5)


def test_evenly_spaced_examples_are_the_first_the_last_and_some_between() -> None:
    windows = EvaluationWindows(in_memory(_documents(*range(13, 24))), length=18, num_context=0, pad_id=0)
    some = EvenlySpaced(windows, 3)
    assert some.sizes(0).lengths.tolist() == windows.sizes(0).lengths[[0, 5, 10]].tolist() == [18, 18, 7]
    chosen, expected = some.collate(np.arange(3), 0), windows.collate(np.array([0, 5, 10]), 0)
    assert_close(chosen.input_ids, expected.input_ids)
    assert len(EvenlySpaced(windows, 100).sizes(0).lengths) == 11


def test_texts_and_token_arrays_of_different_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="token arrays of 2 documents for 3 documents"):
        texts_by_source(in_memory(_documents(4, 5)), grammar.documents(0, 3))


def test_xz_is_primed_with_the_end_of_each_source_apart(tmp_path: Path) -> None:
    rows = [
        Document(str(i), "", source, text)
        for i, (source, text) in enumerate([("a", "first"), ("b", "x"), ("a", "second"), ("a", "third")])
    ]
    write_records(tmp_path / "train.jsonl", rows)
    assert last_bytes(tmp_path / "train.jsonl", 9) == {"a": b"nd\nthird\n", "b": b"x\n"}


@pytest.mark.parametrize("profile", ["tiny", "cpu", "paper"])
def test_the_configuration_of_every_profile_is_complete(profile: str) -> None:
    config = load(ROOT / f"conf/{profile}/pretrain_gpt.yaml", PretrainGPTConfig)
    assert config.evaluation.num_context < config.model.max_length


def test_the_paper_profile_is_gpt2_small_with_its_published_number_of_parameters() -> None:
    config = load(ROOT / "conf/paper/pretrain_gpt.yaml", PretrainGPTConfig)
    with torch.device("meta"):
        model = GPT(GPTConfig(vocab_size=50257, **config.model.model_dump()))
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808
