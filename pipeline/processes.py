"""What the environment says of this process: what started it, how many with it, which of them it is, and its threads.

Reads variables alone, and so costs a stage that does not train no import of Lightning.
"""

import os
from pathlib import Path
from typing import Literal

_NOT_LAUNCHED = ("bash", "interactive")
"""Names of a SLURM job in which Lightning starts the ranks itself, as in a shell (its SLURMEnvironment.detect)."""


def started_by() -> Literal["torchrun", "slurm"] | None:
    """What Lightning takes for the launcher of the ranks; None where it starts them itself.

    torchrun comes first, since it may itself run under SLURM. A batch script of SLURM counts as its launcher even
    without srun.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    return "slurm" if _is_slurm() else None


def is_first_process() -> bool:
    """Whether this is the first of the processes in which one command was started; True where there is no launcher."""
    match started_by():
        case "torchrun":
            names = ["RANK"]
        case "slurm":
            names = ["SLURM_PROCID"]
        case None:
            names = ["NODE_RANK" if "NODE_RANK" in os.environ else "GROUP_RANK", "LOCAL_RANK"]
    return all(_number(name, 0) == 0 for name in names)


def check_launcher(runtime: Path, *, num_devices: int, num_nodes: int) -> None:
    """ValueError where another number of processes was started than the runtime of this file has ranks.

    Of more each would train on its own; fewer would wait for ranks that nobody starts, or train on a part of each step.
    What srun starts, unlike a batch script, is a step with a number (srun(1), output environment variables).
    """
    ranks, launcher = num_devices * num_nodes, started_by()
    has = f"{runtime} has {ranks} rank(s), num_devices {num_devices} x num_nodes {num_nodes}"
    srun = f"srun --nodes {num_nodes} --ntasks-per-node {num_devices}"
    tasks, is_step = _number("SLURM_NTASKS", 1), "SLURM_STEP_ID" in os.environ
    if launcher == "slurm" and ranks > 1 and not is_step:
        raise ValueError(
            f"SLURM_NTASKS={tasks}, and this process was started without srun, but {has}: put {srun} before the "
            "command, or submit the job with --job-name=interactive, and Lightning starts the ranks of one node itself"
        )
    counted = {"WORLD_SIZE": _number("WORLD_SIZE", 1)}
    if launcher == "slurm" or (_is_slurm() and is_step):
        counted["SLURM_NTASKS"] = tasks
    holds_all = {"torchrun": "WORLD_SIZE", "slurm": "SLURM_NTASKS", None: ""}[launcher]
    for variable, started in counted.items():
        if started > ranks or (started < ranks and variable == holds_all):
            raise ValueError(
                f"{variable}={started} processes were started, but {has}: set PIPELINE_RUNTIME to a runtime of "
                f"{started} ranks, or start {ranks} (torchrun --nproc-per-node, srun --ntasks-per-node)"
            )
    if launcher == "slurm" and ranks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ValueError(
            f"SLURM_NTASKS={tasks} without SLURM_NTASKS_PER_NODE, which Lightning needs: start it with {srun}"
        )


def allowed_threads() -> int | None:
    """Threads that OMP_NUM_THREADS allows this process, of a list those of its first level; None where it is not set.

    OpenMP 5.2, section 21.1.2. ValueError for anything but positive integers.
    """
    value = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not value:
        return None
    levels = [int(level) if level.strip().isdecimal() else 0 for level in value.split(",")]
    if min(levels) < 1:
        raise ValueError(f"OMP_NUM_THREADS={value}: allowed is a positive integer, or a list of them such as 4,2")
    return levels[0]


def _is_slurm() -> bool:
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in _NOT_LAUNCHED


def _number(variable: str, default: int) -> int:
    """An integer variable; the default where it is empty or not set."""
    return int(os.environ.get(variable) or default)
