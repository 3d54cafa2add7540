"""Which processes run a stage that needs a runtime: every rank of one that trains, the first of one that does not."""

from pathlib import Path

import pytest
import yaml

from pipeline.config import Config, TrainingConfig
from pipeline.layout import Layout
from pipeline.locks import locked
from pipeline.training.run import stage_run
from tests.core.launchers import BATCH, SLURM, TORCHRUN, launched_by

ROOT = Path(__file__).parents[2]
TRAINING = TrainingConfig.model_validate(yaml.safe_load((ROOT / "conf/tiny/sft.yaml").read_text())["training"])
STAGE = Path("conf/tiny/stage.yaml")


class Trained(Config):
    """The training beside other settings."""

    num_samples: int = 1
    training: TrainingConfig = TRAINING


class ByMethod(Config):
    """The training as one of several methods has it."""

    method: Trained = Trained()


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a configuration, where a stage leaves the test's process as it is."""
    monkeypatch.chdir(tmp_path)
    STAGE.parent.mkdir(parents=True)
    STAGE.write_text("")
    monkeypatch.setenv("PIPELINE_TRACKING", "local")
    monkeypatch.setattr("pipeline.training.run.prepare_process", lambda runtime, seed: None)
    for name in ("install", "watch_parent"):
        monkeypatch.setattr(f"pipeline.training.run.Interrupt.{name}", lambda self: None)


def run(config: Config, *, runtime: str) -> bool:
    """Whether the body of a stage is reached, under a runtime of the repository, and nobody else reaches it."""
    Path("conf/runtime").symlink_to(ROOT / "conf/runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPELINE_RUNTIME", runtime)
        with stage_run("pipeline.stages.reference", STAGE, config, seed=1, inputs=()):
            with pytest.raises(ValueError, match="another run holds this stage"), locked(Layout.of(STAGE).local):
                raise AssertionError("locked twice")
            return True
    return False


@pytest.mark.parametrize("runtime", ["cpu", "ddp_cpu"])
@pytest.mark.parametrize("launcher", [{}, BATCH, BATCH | {"SLURM_NTASKS": "8"}, SLURM | {"SLURM_PROCID": "0"}])
def test_what_does_not_train_is_run_by_the_first_process_whatever_the_runtime_and_the_launcher(
    monkeypatch: pytest.MonkeyPatch, launcher: dict[str, str], runtime: str
) -> None:
    launched_by(monkeypatch, launcher)
    assert run(Config(), runtime=runtime)


@pytest.mark.parametrize("runtime", ["cpu", "ddp_cpu"])
@pytest.mark.parametrize("launcher", [SLURM, TORCHRUN, {"LOCAL_RANK": "1"}])
def test_the_other_processes_of_what_does_not_train_end_well_and_write_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, launcher: dict[str, str], runtime: str
) -> None:
    launched_by(monkeypatch, launcher)
    caplog.set_level("INFO")
    with pytest.raises(SystemExit) as ended:
        run(Config(), runtime=runtime)
    assert ended.value.code == 0
    assert caplog.messages == ["stage: nothing is trained, so that the first process does it alone; this one ends"]
    assert not Path(".pipeline").exists()


@pytest.mark.parametrize("config", [Trained(), ByMethod()])
def test_what_trains_needs_a_process_for_each_rank(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    launched_by(monkeypatch, BATCH)
    with pytest.raises(ValueError, match="started without srun"):
        run(config, runtime="ddp_cpu")
    Path("conf/runtime").unlink()
    assert run(config, runtime="cpu")
