"""What a training takes over from a checkpoint of another configuration, and what it refuses."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from pipeline.checkpoints import Checkpoint, CheckpointFolder, Writer
from pipeline.config import load
from pipeline.layout import Layout
from pipeline.runtime import RuntimeConfig
from pipeline.tracking.tracker import Tracker
from pipeline.training import fit as training
from pipeline.training.callbacks import STATE, OwnSettings
from pipeline.training.interrupt import Interrupt
from pipeline.training.run import StageRun
from pipeline.training.selection import Weights
from tests.training.conftest import TOY
from tests.training.harness import ROOT
from tests.training.toy_stage import Toy, ToyConfig


def toy(*, weight_decay: float = 0.1) -> Toy:
    """A module of 8 steps, of which 3 are done."""
    settings = ToyConfig.model_validate(TOY).model_dump()
    settings["training"]["optimizer"]["weight_decay"] = weight_decay
    module = Toy(ToyConfig.model_validate(settings))
    module.num_steps = 8
    module.history.append({"update": 3.0})
    return module


def foreign(folder: Path, module: Toy, *, update: int = 3) -> Checkpoint:
    """A checkpoint of another key with the weights of `module`."""
    torch.save(
        {"state_dict": {f"model.{name}": value for name, value in module.model.state_dict().items()}}, folder / STATE
    )
    return Checkpoint(folder, update, Writer("single", 1, "cpu", "32-true", 1), is_foreign=True)


@pytest.fixture
def run() -> StageRun:
    """Of a stage that does not start."""
    runtime = load(ROOT / "conf/runtime/cpu.yaml", RuntimeConfig)
    return StageRun(Layout.of(Path("conf/tiny/toy.yaml")), "key", runtime, Interrupt(), Tracker())


def test_a_checkpoint_of_another_model_or_of_a_longer_training_is_refused(tmp_path: Path, run: StageRun) -> None:
    module, other = toy(), toy()
    other.model.hidden = torch.nn.Linear(24, 25)
    found = foreign(tmp_path, other)
    with pytest.raises(ValueError, match=r"hidden.bias has the shape \(25,\) there and \(24,\) here; unset"):
        training._take_over(run, module, found)
    with pytest.raises(ValueError, match="9 steps are done, and this training has 8"):
        training._take_over(run, module, foreign(tmp_path, module, update=9))
    assert len(module.history[-1]) == 1
    training._take_over(run, module, foreign(tmp_path, module))
    assert module.history[-1] == {"update": 3.0, "continued_from_another_key": 1.0}


def test_a_checkpoint_whose_rows_stand_for_other_tokens_is_refused(tmp_path: Path, run: StageRun) -> None:
    module, other = toy(), toy()
    for model, places in ((module.model, [0, 1]), (other.model, [1, 0])):
        model.register_buffer("place", torch.tensor(places))
    with pytest.raises(
        ValueError, match=f"^{tmp_path}: not of this model: place has other values there, as where .* unset"
    ):
        training._take_over(run, module, foreign(tmp_path, other))
    training._take_over(run, module, foreign(tmp_path, module))


def test_an_optimizer_that_was_restored_keeps_its_moments_and_has_the_settings_of_its_own_configuration() -> None:
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    ours, theirs = toy(weight_decay=0.1), toy(weight_decay=0.5)
    ours.trainer = theirs.trainer = trainer
    optimizer, restored = ours.configure_optimizers(), theirs.configure_optimizers()
    theirs.model(torch.zeros(1, 2, dtype=torch.long)).sum().backward()
    restored.step()
    optimizer.load_state_dict(restored.state_dict())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    trainer.optimizers = [optimizer]
    OwnSettings().on_train_start(trainer, ours)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert optimizer.state_dict()["state"]


def test_chosen_weights_that_are_gone_are_named_before_the_training_goes_on(tmp_path: Path) -> None:
    own, other = CheckpointFolder(tmp_path, "own"), CheckpointFolder(tmp_path, "other")
    Weights(other).save(2, {"a": torch.ones(1)})
    found = Checkpoint(other.folder / "step-00000003", 3, Writer("single", 1, "cpu", "32-true", 1), is_foreign=True)
    Weights(own).take_over(found, [2], is_main=True)
    assert Weights(own).mean([2])["a"].item() == 1.0
    with pytest.raises(ValueError, match=r"other/weights/update-00000001.safetensors: missing.* after step 3"):
        Weights(own).take_over(found, [1, 2], is_main=True)
