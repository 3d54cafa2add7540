"""The stage reward: what people prefer is learned from pairs and read at the last token, whatever stands behind it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import tensor
from torch.nn import functional as F

from pipeline.config import TrainingConfig
from pipeline.data.batches import RewardBatch
from pipeline.data.examples.preferences import RewardExamples
from pipeline.data.prepared import read_rated
from pipeline.data.records import write_records
from pipeline.inference.handover import open_reward
from pipeline.layout import Layout
from pipeline.models.heads import RewardModel
from pipeline.stages.preference_pairs import PreferencePairsConfig, read_split
from pipeline.stages.reward import RewardModelling, baseline_accuracies, rewards_of_pairs
from tests.stages.opinions import BAD, GOOD, PAIRS, REQUESTS, REWARD, TRAINING, World, gpt, tokenizer

LAYOUT = Layout.of(Path("conf/tiny/reward.yaml"))


@pytest.fixture
def metrics(world: World) -> Any:
    """What the stage reports."""
    return json.loads((world.root / "metrics/tiny/reward.json").read_text())


def test_unseen_pairs_are_ordered_far_better_than_by_length(metrics: Any) -> None:
    assert metrics["accuracy"] > 0.9
    assert metrics["baselines"]["longer"] < 0.7
    assert metrics["baselines"]["bag_of_words"] > 0.9 and metrics["baselines"]["judge"] > 0.9
    assert "notes" not in metrics


def test_calibration_counts_every_pair_of_the_test_split(metrics: Any) -> None:
    bins = metrics["calibration"]["bins"]
    assert sum(one["count"] for one in bins) == metrics["pairs"]["test"]["pairs"]
    assert metrics["pairs"]["test"]["annotator_agreement"] == 1.0


def test_the_model_that_is_handed_over_prefers_good_words(world: World) -> None:
    opened = open_reward(world.root / "models/tiny/reward")
    special = opened.tokenizer
    prompt = [special.bos_id, special.id_of("user"), *special.encode(REQUESTS[0]), special.id_of("assistant")]

    @torch.no_grad()
    def reward(text: str) -> float:
        ids = tensor([[*prompt, *special.encode(text), special.eos_id]])
        return float(opened.model.eval()(ids, tensor([ids.shape[1] - 1])))

    assert min(reward(f"the film {word}") for word in GOOD) > max(reward(f"the film {word}") for word in BAD)


def test_the_model_is_trained_without_the_dropout_of_the_model_that_it_starts_from(world: World) -> None:
    kinds = ("embd_pdrop", "resid_pdrop", "attn_pdrop")
    start, trained = (
        json.loads((world.root / f"models/tiny/{name}/config.json").read_text()) for name in ("sft", "reward")
    )
    assert [start[kind] for kind in kinds] == [0.1] * 3
    assert [trained[kind] for kind in kinds] == [0.0] * 3


def test_the_loss_reads_each_reward_at_the_true_last_token_whatever_stands_behind() -> None:
    torch.manual_seed(0)
    model = RewardModel(gpt()).eval()
    module = RewardModelling(model, TrainingConfig.model_validate(TRAINING))
    rows = [[1, 3, 40, 4, 50, 60, 2], [1, 3, 40, 4, 2]], [[1, 3, 40, 4, 70, 2], [1, 3, 40, 4, 80, 90, 91, 2]]
    ids = torch.zeros(2, 2, 8, dtype=torch.long)
    for side in range(2):
        for row in range(2):
            ids[side, row, : len(rows[side][row])] = tensor(rows[side][row])
    last = [tensor([len(row) - 1 for row in side]) for side in rows]
    batch = RewardBatch(ids[0], last[0], ids[1], last[1])
    alone = [[float(model(tensor([row]), tensor([len(row) - 1]))) for row in side] for side in rows]
    expected = sum(-float(F.logsigmoid(tensor(alone[0][i] - alone[1][i]))) for i in range(2))
    (terms,) = module.objective(batch)
    assert float(terms.loss_sum) == pytest.approx(expected, rel=1e-5)
    noisy = replace(batch, chosen_ids=torch.where(ids[0] == 0, 77, ids[0]))
    assert float(module.objective(noisy)[0].loss_sum) == pytest.approx(expected, rel=1e-5)


def test_rewards_come_in_the_order_of_the_pairs_whatever_the_batches(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)
    torch.manual_seed(0)
    model = RewardModel(gpt()).eval()
    split = read_split(LAYOUT, "test", PreferencePairsConfig.model_validate(PAIRS), tokenizer())
    examples = RewardExamples(split.encoded, tokenizer().pad_id)
    chosen, rejected = rewards_of_pairs(model, examples, tokens_per_batch=70)
    for i, pair in enumerate(split.encoded):
        for found, ids in ((chosen, pair.chosen), (rejected, pair.rejected)):
            expected = float(model(torch.from_numpy(ids)[None], tensor([len(ids) - 1])))
            assert found[i] == pytest.approx(expected, abs=1e-5)


def test_the_bag_of_words_learns_from_the_training_texts_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    split = read_split(LAYOUT, "test", PreferencePairsConfig.model_validate(PAIRS), tokenizer())
    known = read_rated(LAYOUT.data("prepared/rated/train.jsonl"))
    before = baseline_accuracies(known, split)
    after = baseline_accuracies([replace(text, mean=-text.mean) for text in known], split)
    assert after["bag_of_words"] == pytest.approx(1.0 - before["bag_of_words"], abs=0.1)
    assert (after["judge"], after["longer"]) == (before["judge"], before["longer"])
    assert np.isclose(before["bag_of_words"], 1.0, atol=0.1)


def test_what_becomes_of_the_bag_of_words_where_there_are_no_words_is_noted(world: World, tmp_path: Path) -> None:
    signs = World(tmp_path / "workspace", (world.root / "pipeline").resolve().parent)
    path = signs.root / "data/tiny/prepared/rated/train.jsonl"
    write_records(path, [replace(text, text="! " * (i % 3) + "?") for i, text in enumerate(read_rated(path))])
    short = TRAINING | {"duration": {"kind": "steps", "num_steps": 1}}
    outcome = signs.stage("reward", REWARD | {"training": short}).run("cpu")
    found = json.loads((signs.root / "metrics/tiny/reward.json").read_text())
    note = "no word of two letters or more in the training texts: the same answer for every text"
    assert found["notes"] == {"bag_of_words": note} and f"bag of words: {note}" in outcome.log
    assert found["baselines"]["bag_of_words"] == 0.5


def test_what_was_trained_is_kept_when_the_scores_fail(world: World) -> None:
    short = TRAINING | {"duration": {"kind": "steps", "num_steps": 1}}
    stage = world.stage("reward", REWARD | {"training": short}, variant="-broken")
    stage.module = "tests.stages.broken_scores"
    assert "error: the scores are broken" in stage.run("cpu", expect=(2,)).log
    assert open_reward(stage.output).tokenizer.hash == tokenizer().hash


def test_a_test_split_whose_pairs_are_all_too_long_is_refused_before_training(world: World, tmp_path: Path) -> None:
    lengthy = World(tmp_path / "workspace", (world.root / "pipeline").resolve().parent)
    path = lengthy.root / "data/tiny/prepared/rated/test.jsonl"
    write_records(path, [replace(text, text=f"{text.text} " * 40) for text in read_rated(path)])
    outcome = lengthy.stage("reward", REWARD).run("cpu", expect=(2,))
    assert "error: conf/tiny/reward.yaml: pairs.max_length: found 40, which is too short for each of the" in outcome.log
    assert "padding" not in outcome.log and "Traceback" not in outcome.log
