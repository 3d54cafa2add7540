"""The stages reference and dpo: what the reference says belongs to its pairs, and the policy leaves from there."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pipeline.artifacts import load_tensors
from pipeline.layout import Layout
from pipeline.stages.dpo import SigmoidConfig, with_reference
from pipeline.stages.preference_pairs import PreferencePairsConfig, read_split
from tests.stages.opinions import ALIGNMENT, DPO, LATE, PAIRS, World, gpt, tokenizer
from tests.training.harness import Workspace

LAYOUT = Layout.of(Path("conf/tiny/dpo.yaml"))


@pytest.fixture(scope="module")
def trained(world: World) -> Workspace:
    """The stage, run."""
    stage = world.stage("dpo", DPO)
    stage.run("cpu")
    return stage


def test_the_first_loss_is_log_two(trained: Workspace) -> None:
    first = trained.curve()[0]
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["train/loss/reward_margin"] == pytest.approx(0.0, abs=1e-5)


def test_the_first_loss_is_log_two_in_bfloat16_too(world: World) -> None:
    """The reference was computed in float32."""
    training = DPO["training"] | {"duration": {"kind": "steps", "num_steps": 1}}
    stage = world.stage("dpo", DPO | {"training": training}, variant="-bf16")
    stage.run("cpu_bf16")
    assert stage.curve()[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert stage.curve()[0]["train/loss/reward_margin"] == pytest.approx(0.0, abs=1e-5)


def test_the_first_loss_of_ipo_is_the_square_of_the_wanted_margin(world: World) -> None:
    loss = {"kind": "identity", "beta": 0.1}
    training = DPO["training"] | {"duration": {"kind": "steps", "num_steps": 1}}
    stage = world.stage("dpo", DPO | {"loss": loss, "training": training}, variant="-ipo")
    stage.run("cpu")
    assert stage.curve()[0]["train/loss"] == pytest.approx(25.0, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.5, 0.9])
def test_labels_that_say_nothing_or_the_opposite_are_refused(smoothing: float) -> None:
    SigmoidConfig(kind="sigmoid", beta=0.1, label_smoothing=0.49)
    with pytest.raises(ValueError, match=r"label_smoothing\n  Input should be less than 0.5"):
        SigmoidConfig(kind="sigmoid", beta=0.1, label_smoothing=smoothing)


def test_held_out_pairs_come_to_be_ordered_as_people_order_them(trained: Workspace) -> None:
    last = trained.curve()[-1]
    assert last["valid/loss/reward_accuracy"] > 0.9
    assert last["valid/loss"] < 0.5 * math.log(2)


def test_answers_of_both_models_are_compared(trained: Workspace) -> None:
    metrics = json.loads((trained.root / "metrics/tiny/dpo.json").read_text())
    assert metrics["kl"] > 2 * metrics["kl_standard_error"] > 0
    assert metrics["after"] != metrics["before"]


def test_the_reference_is_the_sum_over_the_response_of_each_pair_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)
    split = read_split(LAYOUT, "valid", PreferencePairsConfig.model_validate(PAIRS), tokenizer())
    tensors, model = load_tensors(LAYOUT.model("reference") / "valid.safetensors"), gpt()
    assert len(split.encoded) > 20
    with torch.no_grad():
        for i, pair in enumerate(split.encoded):
            for side in ("chosen", "rejected"):
                ids = torch.from_numpy(getattr(pair, side))
                log_probs = F.log_softmax(model.logits(model(ids[None, :-1]))[0], -1)
                response = range(len(pair.prompt) - 1, len(ids) - 1)
                expected = sum(float(log_probs[t, ids[t + 1]]) for t in response)
                assert float(tensors[side][i]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("changes", [{"seed": 8}, {"max_uses": 1}, {"prompts": {"movie": "Review it."}}])
def test_other_pairs_than_the_reference_saw_are_refused(world: World, changes: dict[str, Any]) -> None:
    outcome = world.stage("dpo", DPO | {"pairs": PAIRS | changes}, variant="-other").run("cpu", expect=(2,))
    assert "log-probabilities of the split train are of other pairs" in outcome.log
    assert "`pairs` has to be the same" in outcome.log and "Traceback" not in outcome.log


@pytest.mark.parametrize(("changes", "reason"), LATE)
def test_settings_of_the_answers_are_refused_before_training(
    world: World, changes: dict[str, Any], reason: str
) -> None:
    outcome = world.stage("dpo", DPO | {"alignment": ALIGNMENT | changes}, variant="-late").run("cpu", expect=(2,))
    assert reason in outcome.log
    assert "padding" not in outcome.log and "steps/s" not in outcome.log and "Traceback" not in outcome.log


def test_the_reference_goes_to_its_own_pairs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    split = read_split(LAYOUT, "train", PreferencePairsConfig.model_validate(PAIRS), tokenizer())
    examples = with_reference(LAYOUT.model("reference"), "train", split, tokenizer())
    tensors = load_tensors(LAYOUT.model("reference") / "train.safetensors")
    assert examples.reference_chosen.tolist() == tensors["chosen"].tolist()
    assert examples.reference_rejected.tolist() == tensors["rejected"].tolist()


def test_no_text_is_in_the_pairs_of_two_splits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)
    seen: dict[str, set[str]] = {}
    for name in ("train", "valid", "test"):
        split = read_split(LAYOUT, name, PreferencePairsConfig.model_validate(PAIRS), tokenizer())
        seen[name] = {text for pair in split.pairs for text in (pair.chosen_id, pair.rejected_id)}
        assert seen[name] and all(text.startswith(f"{name}-") for text in seen[name])
