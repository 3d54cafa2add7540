"""The stage sft: answers are learned and ended, and nothing but the responses is in the loss."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.testing import assert_close

from pipeline.config import load
from pipeline.data.examples.instructions import instruction_examples
from pipeline.data.records import Conversation, Message, write_records
from pipeline.inference.handover import open_gpt, save_gpt
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.stages.sft import SFTConfig, check_context, choose_requests, response_loss, response_scores
from tests.stages import grammar
from tests.training.harness import ROOT, Workspace, snapshot

CONFIG: dict[str, Any] = {
    "training": {
        "seed": 1,
        "batching": {"kind": "tokens", "tokens_per_step": 400},
        "duration": {"kind": "steps", "num_steps": 80},
        "optimizer": {"lr": 0.01, "betas": [0.9, 0.95]},
        "schedule": {"kind": "linear", "num_warmup_steps": 5},
        "validate_every": 40,
        "checkpoint_every": 40,
    },
    "dropout": 0.0,
    "max_length": 24,
    "too_long": "drop",
    "answers": {"decoding": {"kind": "greedy", "max_new_tokens": 10}, "num_requests": 10, "num_samples": 3},
}


def _model(max_length: int = 32) -> GPT:
    torch.manual_seed(0)
    shape = GPTConfig(
        vocab_size=grammar.tokenizer().vocab_size, d_model=48, num_layers=1, num_heads=2, max_length=max_length
    )
    return GPT(shape).eval()


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code that the stage runs."""
    return snapshot(tmp_path_factory.mktemp("code"))


def _workspace(root: Path, code: Path, config: dict[str, Any]) -> Workspace:
    """A workspace with random weights to start from."""
    workspace = Workspace(root, code, module="pipeline.stages.sft", config="conf/tiny/sft.yaml")
    grammar.write_data(root, with_tokens=False)
    save_gpt(root / "models/tiny/pretrain_gpt", _model(), grammar.tokenizer())
    (root / "conf/tiny").mkdir()
    (root / "conf/tiny/sft.yaml").write_text(yaml.safe_dump(config))
    return workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Path:
    """The workspace in which the stage ran."""
    workspace = _workspace(tmp_path_factory.mktemp("sft") / "workspace", code, CONFIG)
    workspace.run("cpu")
    return workspace.root


def _metrics(root: Path) -> Any:
    return json.loads((root / "metrics/tiny/sft.json").read_text())


def test_responses_are_learned_far_below_the_perplexity_of_the_start(trained: Path) -> None:
    response = _metrics(trained)["response"]
    # An untrained model is as unsure as the vocabulary is large.
    assert response["base"]["perplexity"] == pytest.approx(grammar.tokenizer().vocab_size, rel=0.1)
    assert response["sft"]["perplexity"] < 2.0


def test_greedy_answers_to_held_out_requests_end_with_eos(trained: Path) -> None:
    greedy = _metrics(trained)["greedy"]
    assert greedy["sft"]["ended"] >= 0.95
    assert greedy["base"]["ended"] < 0.5
    assert greedy["sft"]["num_shortened"] == greedy["base"]["num_shortened"] == 0


def test_every_example_trains_its_eos_and_none_is_dropped(trained: Path) -> None:
    for split, count in {"train": 120, "valid": 12, "test": 12}.items():
        assert _metrics(trained)["data"][split] == {
            "num_examples": count,
            "num_shortened": 0,
            "num_dropped": 0,
            "eos_target_share": 1.0,
        }


def test_samples_show_each_request_with_the_answers_before_and_after(trained: Path) -> None:
    samples = json.loads((trained / "metrics/tiny/samples/sft.json").read_text())
    assert len(samples) == 3
    assert all(sample["after"] != sample["before"] and sample["prompt"] and sample["data"] for sample in samples)


def test_shape_and_tokenizer_travel_with_the_artifact(trained: Path) -> None:
    start, tuned = (open_gpt(trained / "models/tiny" / name) for name in ("pretrain_gpt", "sft"))
    assert tuned.model.config == start.model.config
    assert tuned.tokenizer.hash == start.tokenizer.hash


def test_the_loss_is_the_same_whatever_the_labels_of_prompts_and_padding_are() -> None:
    model, tokenizer = _model(), grammar.tokenizer()
    examples, _ = instruction_examples(grammar.conversations(0, 6), tokenizer, max_length=24, too_long="raise")
    batch = examples.collate(examples.sizes(0).lengths.argsort(), 0)
    changed = replace(batch, labels=torch.where(batch.is_response, batch.labels, 7))
    assert (changed.labels != batch.labels).any()
    assert_close(response_loss(model, batch).loss_sum, response_loss(model, changed).loss_sum, rtol=0.0, atol=0.0)
    spoiled = replace(batch, labels=torch.where(batch.is_response, 7, batch.labels))
    assert response_loss(model, spoiled).loss_sum != response_loss(model, batch).loss_sum


def test_the_loss_of_a_padded_batch_is_the_sum_of_its_conversations_alone() -> None:
    model, tokenizer = _model(), grammar.tokenizer()
    examples, _ = instruction_examples(grammar.conversations(20, 9), tokenizer, max_length=24, too_long="raise")
    lengths = examples.sizes(0).lengths
    assert len(set(lengths.tolist())) > 1
    with torch.no_grad():
        whole = response_loss(model, examples.collate(lengths.argsort(), 0))
        alone = [response_loss(model, examples.collate(lengths.argsort()[[i]], 0)) for i in range(9)]
    assert whole.num_targets == sum(term.num_targets for term in alone)
    assert_close(whole.loss_sum, sum(term.loss_sum for term in alone), rtol=1e-5, atol=1e-5)


def test_the_response_score_counts_response_tokens_and_their_eos_over_all_sources() -> None:
    model, tokenizer = _model(), grammar.tokenizer()
    records = grammar.conversations(0, 8)
    scores = response_scores(model, records, tokenizer, SFTConfig.model_validate(CONFIG))
    num_tokens = sum(len(tokenizer.encode(one.messages[-1].content)) + 1 for one in records)
    assert scores["num_tokens"] == num_tokens
    assert set(scores["by_source"]) == {"asked", "begged"}
    parts = scores["by_source"].values()
    mean = sum(one["nats_per_token"] * one["num_tokens"] for one in parts) / num_tokens
    assert scores["nats_per_token"] == pytest.approx(mean)
    assert scores["perplexity"] == pytest.approx(math.exp(mean))


def test_conversations_longer_than_the_context_are_refused_before_training() -> None:
    with pytest.raises(ValueError, match="max_length: found 24, the model's context holds 16 tokens"):
        check_context(SFTConfig.model_validate(CONFIG), _model(max_length=16))


@pytest.mark.parametrize("change", ["long answers", "long conversations", "no conversations"])
def test_what_could_not_be_scored_is_refused_before_training(tmp_path: Path, code: Path, change: str) -> None:
    decoding = {"kind": "greedy", "max_new_tokens": 29}
    settings, reason = {
        "long answers": (
            {"answers": CONFIG["answers"] | {"decoding": decoding}},
            "answers.decoding.max_new_tokens: found 29, the context of 32 tokens allows at most 28",
        ),
        "long conversations": (
            {"max_length": 5},
            "/test.jsonl: no response of its 12 conversations fits into max_length: 5 of conf/tiny/sft.yaml",
        ),
        "no conversations": (
            {},
            "/test.jsonl: no conversations, and sft learns from train, validates on valid and is scored on test: in "
            "prepare.yaml, a source of conversations goes there by `into: test`",
        ),
    }[change]
    workspace = _workspace(tmp_path / "workspace", code, CONFIG | settings)
    if change == "no conversations":
        write_records(workspace.root / "data/tiny/prepared/conversations/test.jsonl", [])
    outcome = workspace.run("cpu", expect=(2,))
    assert reason in outcome.log
    assert "padding" not in outcome.log and "Traceback" not in outcome.log


def test_what_was_trained_is_kept_when_the_answers_fail(tmp_path: Path, code: Path) -> None:
    training = CONFIG["training"] | {"duration": {"kind": "steps", "num_steps": 1}}
    workspace = _workspace(tmp_path / "workspace", code, CONFIG | {"training": training})
    workspace.module = "tests.stages.broken_scores"
    assert "error: the scores are broken" in workspace.run("cpu", expect=(2,)).log
    assert open_gpt(workspace.output).tokenizer.hash == grammar.tokenizer().hash


def test_requests_are_different_ones() -> None:
    records = [*grammar.conversations(0, 52), *grammar.conversations(0, 52)]
    chosen = choose_requests(records, 10)
    assert len({one.messages[:-1] for one in chosen}) == 10
    assert len(choose_requests(records, 1000)) == 52


@pytest.mark.parametrize(("num_records", "count"), [(511, 256), (511, 255), (52, 10), (7, 7), (7, 1)])
def test_requests_are_spread_over_the_whole_of_the_records(num_records: int, count: int) -> None:
    records = [
        Conversation(f"{i}", "asked", (Message("user", f"Say {i}."), Message("assistant", f"{i}")), f"{i}")
        for i in range(num_records)
    ]
    places = [int(one.id) for one in choose_requests(records, count)]
    assert len(places) == count and places[0] == 0
    # From each to the next it is as far as from the last one to the end, up to one.
    steps = [end - begin for begin, end in zip(places, [*places[1:], num_records], strict=True)]
    assert max(steps) - min(steps) <= 1


@pytest.mark.parametrize("profile", ["tiny", "cpu", "paper"])
def test_the_configuration_of_every_profile_is_complete(profile: str) -> None:
    config = load(ROOT / f"conf/{profile}/sft.yaml", SFTConfig)
    assert config.answers.decoding.max_new_tokens < config.max_length
