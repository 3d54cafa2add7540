"""What started a process: refused where it started more or fewer than there are ranks; which is first; threads."""

from pathlib import Path

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from pipeline.processes import allowed_threads, check_launcher, is_first_process, started_by
from tests.core.launchers import BATCH, SLURM, TORCHRUN, launched_by

FILE = Path("conf/runtime/mine.yaml")
INTERACTIVE = {"SLURM_JOB_NAME": "interactive"}
RANKS = [
    ({}, True),
    ({"LOCAL_RANK": "1"}, False),
    ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
    ({"NODE_RANK": "2"}, False),
    ({"GROUP_RANK": "1"}, False),
    (TORCHRUN, False),
    (TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}, True),
    (SLURM, False),
    (SLURM | {"SLURM_PROCID": "0", "SLURM_NODEID": "0"}, True),
    (BATCH, True),
    # torchrun under srun: the process of srun is one of a node, that of torchrun is a rank.
    (SLURM | {"SLURM_PROCID": "0"} | TORCHRUN, False),
    # Commands apart.
    (SLURM | INTERACTIVE, True),
]


@pytest.mark.parametrize(("environment", "is_first"), RANKS)
def test_the_launcher_and_its_first_process_are_those_of_lightning(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_first: bool
) -> None:
    launched_by(monkeypatch, environment)
    assert is_first_process() is is_first
    if TorchElasticEnvironment.detect():
        assert started_by() == "torchrun"
        rank = TorchElasticEnvironment().global_rank()
    elif SLURMEnvironment.detect():
        assert started_by() == "slurm"
        rank = SLURMEnvironment().global_rank()
    else:
        assert started_by() is None
        alone = LightningEnvironment()
        rank = alone.node_rank() + alone.local_rank()
    assert (rank == 0) is is_first


@pytest.mark.parametrize(
    "environment",
    [
        {},
        TORCHRUN,
        SLURM,
        # Lightning starts the ranks, however many tasks the job was given.
        *(BATCH | {"SLURM_NTASKS": number} | INTERACTIVE for number in ("1", "6", "8")),
        SLURM | {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"},
        # torchrun starts the ranks: as a process of srun on each node, or in a batch script of any size.
        SLURM | {"SLURM_NTASKS": "3"} | TORCHRUN,
        BATCH | {"SLURM_NTASKS": "8"} | TORCHRUN,
    ],
)
def test_as_many_processes_as_ranks_are_taken(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    launched_by(monkeypatch, environment)
    check_launcher(FILE, num_devices=2, num_nodes=3)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        (TORCHRUN | {"WORLD_SIZE": "8"}, "WORLD_SIZE=8"),
        (TORCHRUN | {"WORLD_SIZE": "4"}, "WORLD_SIZE=4"),
        ({"WORLD_SIZE": "8"}, "WORLD_SIZE=8"),
        (SLURM | {"SLURM_NTASKS": "8"}, "SLURM_NTASKS=8"),
        (SLURM | {"SLURM_NTASKS": "1"}, "SLURM_NTASKS=1"),
        # As many trainings as tasks, each of six ranks.
        (SLURM | {"SLURM_NTASKS": "8"} | TORCHRUN, "SLURM_NTASKS=8"),
    ],
)
def test_more_and_fewer_processes_than_ranks_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], found: str
) -> None:
    launched_by(monkeypatch, environment)
    number = found[-1]
    remedy = rf"PIPELINE_RUNTIME .* {number} ranks, or start 6 \(torchrun .*, srun .*\)"
    with pytest.raises(ValueError, match=rf"^{found} processes .*mine.yaml has 6 rank\(s\), .*{remedy}$"):
        check_launcher(FILE, num_devices=2, num_nodes=3)


@pytest.mark.parametrize("tasks", ["1", "6", "8"])
def test_ranks_in_a_batch_script_without_srun_are_refused(monkeypatch: pytest.MonkeyPatch, tasks: str) -> None:
    """Lightning would take this process for one of as many as there are tasks, and start no other."""
    launched_by(monkeypatch, BATCH | {"SLURM_NTASKS": tasks})
    srun = "put srun --nodes 3 --ntasks-per-node 2 before the command"
    reason = rf"^SLURM_NTASKS={tasks}, .*without srun.*mine.yaml has 6 rank\(s\).*{srun}.*--job-name=interactive"
    with pytest.raises(ValueError, match=reason):
        check_launcher(FILE, num_devices=2, num_nodes=3)


def test_a_single_rank_in_a_batch_script_needs_no_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    launched_by(monkeypatch, BATCH)
    check_launcher(FILE, num_devices=1, num_nodes=1)
    launched_by(monkeypatch, BATCH | {"SLURM_NTASKS": "8"})
    with pytest.raises(ValueError, match="SLURM_NTASKS=8 processes"):
        check_launcher(FILE, num_devices=1, num_nodes=1)


def test_tasks_that_lightning_cannot_place_on_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    launched_by(monkeypatch, {name: value for name, value in SLURM.items() if name != "SLURM_NTASKS_PER_NODE"})
    reason = "SLURM_NTASKS=6 without SLURM_NTASKS_PER_NODE.*srun --nodes 3 --ntasks-per-node 2"
    with pytest.raises(ValueError, match=reason):
        check_launcher(FILE, num_devices=2, num_nodes=3)


@pytest.mark.parametrize(("value", "threads"), [("", None), (" ", None), ("3", 3), ("4,2", 4), (" 4 , 2 ", 4)])
def test_the_threads_are_those_of_the_first_level(
    monkeypatch: pytest.MonkeyPatch, value: str, threads: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert allowed_threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert allowed_threads() is None


@pytest.mark.parametrize("value", ["0", "-1", "all", "1.5", "4,", ",4", "4,all", "4;2"])
def test_threads_that_are_no_number_are_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS={value}: allowed is a positive integer, or a list"):
        allowed_threads()
