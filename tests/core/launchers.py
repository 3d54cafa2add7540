"""The variables that launchers of several processes set, for tests."""

import pytest

LAUNCHERS = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_NAME"),
)
TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "6", "TORCHELASTIC_RUN_ID": "x"}
BATCH = {
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NTASKS": "1",
    "SLURM_JOB_NAME": "train",
}
"""A batch script."""
SLURM = BATCH | {
    "SLURM_PROCID": "4",
    "SLURM_NODEID": "2",
    "SLURM_NTASKS": "6",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_STEP_ID": "0",
}
"""srun in a batch script."""


def launched_by(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Sets these variables and no other of any launcher."""
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
