"""Which weights become the model, and when a training ends early."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import tensor
from torch.testing import assert_close

from pipeline.checkpoints import CheckpointFolder
from pipeline.config import load
from pipeline.runtime import RuntimeConfig
from pipeline.training.history import History
from pipeline.training.selection import Select, Selection, SelectionConfig, Weights
from tests.training.conftest import TOY
from tests.training.harness import ROOT
from tests.training.toy_stage import Toy, ToyConfig

RUNTIMES = ROOT / "conf/runtime"


def selection(**settings: object) -> Selection:
    return Selection(SelectionConfig.model_validate(settings), bleu=lambda state, device: 0.0)


def history(key: str, values: dict[int, float]) -> History:
    """Ten optimizer steps between two validations, which have the given values."""
    found = History()
    for update in range(1, max(values) + 1):
        found.append({"update": float(update), "train/total": 1.0})
        if update in values:
            found.add_to_last({key: values[update]})
    return found


LOSSES = history("valid/total", {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.2})
SCORES = history("valid/bleu", {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.2})


def test_the_last_are_chosen_whatever_they_are_worth() -> None:
    assert selection(num_averaged=1).chosen(LOSSES) == [40]
    assert selection(num_averaged=3).chosen(LOSSES) == [20, 30, 40]
    assert selection(num_averaged=9).chosen(LOSSES) == [10, 20, 30, 40]


def test_the_best_have_the_lowest_loss_or_the_highest_bleu_in_the_order_of_the_training() -> None:
    assert selection(choose="best", num_averaged=2).chosen(LOSSES) == [20, 40]
    assert selection(choose="best", num_averaged=2, metric="bleu").chosen(SCORES) == [10, 30]


def test_of_equal_ones_the_earlier_is_better() -> None:
    equal = history("valid/total", {10: 2.0, 20: 1.0, 30: 1.0})
    assert selection(choose="best").chosen(equal) == [20]
    assert selection(choose="best", patience=1).is_over(equal)


@pytest.mark.parametrize(("metric", "values", "num_worse"), [("loss", LOSSES, 2), ("bleu", SCORES, 3)])
def test_the_training_is_over_after_so_many_validations_without_a_better_one(
    metric: str, values: History, num_worse: int
) -> None:
    """The loss is best at the second of four validations, BLEU at the first."""
    for patience in range(1, 6):
        is_over = selection(choose="best", metric=metric, patience=patience).is_over(values)
        assert is_over is (patience <= num_worse)
    assert not selection(choose="best", metric=metric, patience=0).is_over(values)


def test_each_metric_ends_the_training_by_its_own_values() -> None:
    """The loss falls to the end while BLEU is best at the first validation."""
    both = History()
    for update in (10.0, 20.0, 30.0):
        both.append({"update": update, "valid/total": 40.0 - update, "valid/bleu": 50.0 - update})
    assert selection(choose="best", metric="bleu", patience=2).is_over(both)
    assert not selection(choose="best", metric="loss", patience=1).is_over(both)


def test_before_the_first_validation_nothing_is_chosen_and_nothing_is_over() -> None:
    assert selection(choose="best", patience=1).chosen(History()) == []
    assert not selection(choose="best", patience=1).is_over(History())


def test_the_model_is_the_mean_of_the_weights_and_what_is_not_chosen_is_removed(tmp_path: Path) -> None:
    weights = Weights(CheckpointFolder(tmp_path, "key"))
    for update, value in ((10, 100.0), (20, 1.0), (30, 4.0)):
        weights.save(update, {"a": tensor([value, -value]), "n": tensor([update])})
    weights.keep(selection(num_averaged=2), history("valid/total", {10: 1.0, 20: 1.0, 30: 1.0}))
    assert [file.stem for file in sorted(weights.folder.iterdir())] == ["update-00000020", "update-00000030"]
    mean = weights.mean([20, 30])
    assert_close(mean["a"], tensor([2.5, -2.5]))
    assert mean["n"].tolist() == [30] and mean["n"].dtype == torch.int64


def test_weights_that_a_kept_checkpoint_would_choose_stay_until_that_checkpoint_goes(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, "key")
    weights, best = Weights(checkpoints), selection(choose="best")
    for update in (10, 20):
        weights.save(update, {"a": tensor([1.0])})
    for folder in ("step-00000015", "step-00000019"):
        (checkpoints.folder / folder).mkdir()
    weights.keep(best, LOSSES)
    assert [file.stem for file in sorted(weights.folder.iterdir())] == ["update-00000010", "update-00000020"]
    for folder in ("step-00000015", "step-00000019"):
        (checkpoints.folder / folder).rename(checkpoints.folder / folder.replace("1", "2"))
    weights.keep(best, LOSSES)
    assert [file.stem for file in weights.folder.iterdir()] == ["update-00000020"]


@pytest.mark.parametrize(("metric", "values"), [("loss", LOSSES), ("bleu", SCORES)])
def test_a_choice_reads_the_validations_alone_and_not_every_step(
    monkeypatch: pytest.MonkeyPatch, metric: str, values: History
) -> None:
    """The check of types looks at a row now and then."""
    built: list[int] = []
    build = History._row

    def noted(self: History, number: int) -> dict[str, float]:
        built.append(number)
        return build(self, number)

    def fail(*_: object) -> None:
        raise AssertionError("without patience nothing is looked up")

    monkeypatch.setattr(History, "_row", noted)
    best = selection(choose="best", metric=metric, patience=2)
    assert best.chosen(values) == ([20] if metric == "loss" else [10])
    assert best.chosen(values, until=15.0) == [10]
    assert best.is_over(values)
    assert len(built) < len(values)
    monkeypatch.setattr(History, "column", fail)
    assert not selection(choose="best", metric=metric).is_over(values)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bleu_that_is_no_number_is_refused_with_its_step(tmp_path: Path, value: float) -> None:
    module = Toy(ToyConfig.model_validate(TOY))
    module.history.append({"update": 7.0, "valid/total": 1.0})
    chooses = Selection(SelectionConfig(metric="bleu"), bleu=lambda _state, _device: value)
    select = Select(chooses, Weights(CheckpointFolder(tmp_path, "key")), load(RUNTIMES / "cpu.yaml", RuntimeConfig))
    with pytest.raises(FloatingPointError, match=f"valid/bleu is {value} after optimizer step 7"):
        select.on_step_end(Trainer(logger=False, enable_checkpointing=False), module, 7)


def test_the_mean_of_many_equal_weights_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    weights = Weights(CheckpointFolder(tmp_path, "key"))
    state = {"a": torch.randn(1000)}
    for update in range(3):
        weights.save(update, state)
    assert torch.equal(weights.mean([0, 1, 2])["a"], state["a"])
    assert torch.equal(weights.mean([1])["a"], state["a"])


def test_only_the_weights_at_the_end_need_no_file() -> None:
    assert selection().config.is_end and selection(metric="bleu").config.is_end
    assert not selection(choose="best").config.is_end
    assert not selection(num_averaged=2).config.is_end


def test_patience_that_would_hand_on_worse_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="patience: 3 hands on weights that are 3 validations past the best"):
        selection(patience=3)
    assert selection(patience=3, num_averaged=2).config.patience == 3
