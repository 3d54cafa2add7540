"""Runtimes: which rank this is, what a file must not say, and random numbers that continue."""

import ctypes
import json
import random
import subprocess
import sys
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy

from pipeline.config import load
from pipeline.runtime import (
    RuntimeConfig,
    build_trainer,
    current_runtime,
    global_rank,
    gradient_scale,
    keep_freed_memory,
    prepare_process,
    resume_mode,
    stop_seconds,
)
from pipeline.seeds import random_state, restore_random_state, seed_everything
from tests.core.launchers import SLURM, TORCHRUN, launched_by

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "accelerator": "cpu",
    "strategy": "ddp",
    "num_devices": 2,
    "num_nodes": 3,
    "accumulation": 4,
    "precision": "32-true",
    "num_threads": 1,
    "prefetch": 0,
    "zero_stage": 0,
    "offload": "none",
}


def runtime(**changes: object) -> RuntimeConfig:
    return RuntimeConfig.model_validate(SETTINGS | changes)


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        # Lightning starts the other ranks of this node.
        ({"LOCAL_RANK": "1"}, 1),
        # One process a node is started by the user, the rest by Lightning.
        ({"NODE_RANK": "2"}, 4),
        ({"NODE_RANK": "2", "LOCAL_RANK": "1"}, 5),
        # torchrun starts every rank.
        (TORCHRUN, 3),
        # So does srun, inside which torchrun may run.
        (SLURM, 4),
        (SLURM | TORCHRUN, 3),
        # In a shell that SLURM gave, Lightning starts the ranks.
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, 0),
    ],
)
def test_the_rank_is_the_one_that_lightning_will_have(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], rank: int
) -> None:
    launched_by(monkeypatch, environment)
    assert global_rank(runtime()) == rank
    assert global_rank(runtime(strategy="single", num_devices=1, num_nodes=1)) == 0


@pytest.mark.parametrize("environment", [{}, TORCHRUN, SLURM])
def test_the_launcher_that_gives_the_rank_is_that_of_the_trainer_and_requeues_no_job_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str]
) -> None:
    """By itself Lightning saves a checkpoint of its own at SIGUSR1, and takes it up unasked."""
    launched_by(monkeypatch, environment)
    trainer = build_trainer(runtime(), clip_norm=0.0, callbacks=[], folder=tmp_path)
    assert trainer.global_rank == global_rank(runtime())
    assert isinstance(trainer.strategy, DDPStrategy)
    launcher = trainer.strategy.cluster_environment
    if environment == SLURM:
        assert isinstance(launcher, SLURMEnvironment) and not launcher.auto_requeue
    else:
        assert not isinstance(launcher, SLURMEnvironment)


@pytest.mark.parametrize(
    ("num_found", "reason"),
    [(0, "no CUDA device was found by torch .*PIPELINE_RUNTIME=cpu"), (1, "num_devices 2, this machine has 1")],
)
def test_gpus_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_found: int, reason: str
) -> None:
    launched_by(monkeypatch, {})
    use(tmp_path, monkeypatch, SETTINGS | {"accelerator": "cuda"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_found)
    with pytest.raises(ValueError, match=f"mine.yaml: .*{reason}"):
        current_runtime()


def use(folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]) -> None:
    """Makes these settings the runtime `mine`, and chooses it."""
    (folder / "conf/runtime").mkdir(parents=True)
    (folder / "conf/runtime/mine.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PIPELINE_RUNTIME", "mine")


def test_each_group_of_a_step_is_cut_into_as_many_micro_batches_as_a_whole_one_was() -> None:
    assert runtime().in_groups(3) == runtime(accumulation=12)
    assert runtime().in_groups(1) == runtime()


@pytest.mark.parametrize("name", ["cpu", "ddp_cpu"])
def test_a_runtime_in_bfloat16_differs_from_that_in_float32_by_its_precision_alone(name: str) -> None:
    exact, rounded = (load(ROOT / f"conf/runtime/{file}.yaml", RuntimeConfig) for file in (name, f"{name}_bf16"))
    assert exact.precision == "32-true"
    assert rounded == exact.model_copy(update={"precision": "bf16-mixed"})


def test_the_scale_of_the_loss_undoes_every_division() -> None:
    """6 ranks x 4 micro-batches; DeepSpeed divides by the 4 twice."""
    assert gradient_scale(runtime()) == 24.0
    assert gradient_scale(runtime(strategy="deepspeed", zero_stage=2)) == 96.0


def test_deepspeed_is_told_what_to_offload_and_to_compile_nothing_of_its_own(tmp_path: Path) -> None:
    """In a process of its own, since its import changes the process. With offload it insists on an Adam that it
    compiles, unless it is told otherwise, and on CPUs it compiles a sum over shared memory.
    """
    script = """
import json, sys
from pathlib import Path
from unittest.mock import patch
from pipeline.runtime import CpuDeepSpeedStrategy, RuntimeConfig, build_trainer
configs = {}
for offload in ("none", "optimizer", "all"):
    runtime = RuntimeConfig.model_validate(json.loads(sys.argv[1]) | {"offload": offload})
    strategy = build_trainer(runtime, clip_norm=0.0, callbacks=[], folder=Path(sys.argv[2])).strategy
    configs[offload] = strategy.config
import deepspeed
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = True
with (
    patch.object(CpuDeepSpeedStrategy, "set_world_ranks"),
    patch.object(CpuDeepSpeedStrategy, "_init_deepspeed_distributed") as init,
):
    strategy.setup_distributed()
assert init.called
print(json.dumps([configs, deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"]]))
"""
    settings = SETTINGS | {"strategy": "deepspeed", "zero_stage": 3}
    command = [sys.executable, "-c", script, json.dumps(settings), str(tmp_path)]
    configs, compiles = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    moved = {
        offload: {part: zero[part]["device"] for part in ("offload_optimizer", "offload_param") if part in zero}
        for offload, zero in ((offload, config["zero_optimization"]) for offload, config in configs.items())
    }
    assert moved == {
        "none": {},
        "optimizer": {"offload_optimizer": "cpu"},
        "all": {"offload_optimizer": "cpu", "offload_param": "cpu"},
    }
    assert [config["zero_force_ds_cpu_optimizer"] for config in configs.values()] == [False] * 3
    assert not compiles


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy": "deepspeed"}, "zero_stage 0 does not go with strategy deepspeed"),
        ({"zero_stage": 2}, "zero_stage 2 does not go with strategy ddp"),
        ({"strategy": "single"}, "strategy single has one rank, found 6"),
        (
            {"strategy": "deepspeed", "zero_stage": 2, "precision": "16-mixed"},
            "precision 16-mixed does not go with strategy deepspeed; allowed are 32-true and bf16-mixed",
        ),
        ({"zero_stage": 4}, "zero_stage"),
    ],
)
def test_a_runtime_that_contradicts_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], reason: str
) -> None:
    use(tmp_path, monkeypatch, SETTINGS | changes)
    with pytest.raises(ValueError, match=f"mine.yaml.*{reason}|mine.yaml: 1 bad key(.|\n)*{reason}"):
        current_runtime()


def test_sixteen_bits_of_either_kind_go_without_deepspeed_and_bfloat16_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched_by(monkeypatch, {})
    taken: dict[str, dict[str, object]] = {
        "16-mixed alone": {"precision": "16-mixed"},
        "bf16-mixed": {"precision": "bf16-mixed", "strategy": "deepspeed", "zero_stage": 2},
        "32-true": {"strategy": "deepspeed", "zero_stage": 2},
    }
    for name, changes in taken.items():
        use(tmp_path / name, monkeypatch, SETTINGS | changes)
        assert current_runtime() == runtime(**changes)


@pytest.mark.usefixtures("as_before")
def test_the_threads_of_a_process_are_within_what_openmp_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    for value, expected in (("", 4), ("3,2", 3), ("99", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        prepare_process(runtime(num_threads=4), seed=1)
        assert torch.get_num_threads() == expected


def test_an_unknown_runtime_is_named_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(tmp_path, monkeypatch, SETTINGS)
    monkeypatch.setenv("PIPELINE_RUNTIME", "other")
    with pytest.raises(ValueError, match=r"PIPELINE_RUNTIME=other: no conf/runtime/other.yaml; known are mine"):
        current_runtime()


def test_what_is_continued_beside_its_own_checkpoints_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_RESUME", raising=False)
    assert resume_mode() == "exact"
    for mode in ("exact", "weights", "any"):
        monkeypatch.setenv("PIPELINE_RESUME", mode)
        assert resume_mode() == mode
    monkeypatch.setenv("PIPELINE_RESUME", "wieghts")
    with pytest.raises(ValueError, match="PIPELINE_RESUME=wieghts: allowed are exact"):
        resume_mode()


def test_the_time_for_a_stop_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_STOP_SECONDS", raising=False)
    assert stop_seconds() == 60.0
    monkeypatch.setenv("PIPELINE_STOP_SECONDS", "7.5")
    assert stop_seconds() == 7.5
    for value in ("0", "-1", "inf", "soon"):
        monkeypatch.setenv("PIPELINE_STOP_SECONDS", value)
        with pytest.raises(ValueError, match=f"PIPELINE_STOP_SECONDS={value}: allowed is a number of seconds above 0"):
            stop_seconds()


def draw() -> tuple[object, ...]:
    # An odd number of Gaussians leaves one in store in Python's and NumPy's generator.
    return random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist(), torch.rand(3).tolist()


def test_every_random_number_continues_from_a_saved_state(tmp_path: Path) -> None:
    seed_everything(7)
    draw()
    torch.save(random_state(), tmp_path / "state.pt")
    wanted = [draw() for _ in range(3)]
    seed_everything(8)
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [draw() for _ in range(3)] == wanted


def test_a_freed_block_is_used_again_without_a_page_from_the_kernel() -> None:
    script = """
import resource, torch
from pipeline.runtime import keep_freed_memory
def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
if KEEPS:
    keep_freed_memory()
print(*(faults() for _ in range(11)))
"""
    freed, kept = (
        median(
            int(count) for count in subprocess.check_output([sys.executable, "-c", f"KEEPS = {keeps}{script}"]).split()
        )
        for keeps in (False, True)
    )
    # A tensor of 48 MB is 11,700 pages of 4 KiB, fewer where the kernel has larger ones, and the heap grows at times.
    assert kept <= freed / 10


def test_glibc_alone_is_asked_and_what_it_refuses_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: dict[int, int] = {}

    def mallopt(setting: int, value: int) -> int:
        asked[setting] = value
        return int(setting != -1)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr("platform.libc_ver", lambda: ("musl", "1.2"))
    keep_freed_memory()
    assert asked == {}
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    keep_freed_memory()
    # By the numbers of malloc.h: trim never, ask for 64 MiB more than is needed, and map nothing apart.
    assert asked == {-1: -1, -2: 64 * 2**20, -4: 0}
    (refused,) = caplog.records
    assert refused.getMessage().startswith("glibc refuses setting -1 of mallopt")
