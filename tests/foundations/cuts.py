"""Trains every stage under one runtime, one after the other in the same processes: starting them costs the most.

The stages run as they are, up to the moment when their training is done; what they would do with the trained model is
left out. The process group stays for the next stage.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import Tensor

_SECONDS = 400.0
_forks = multiprocessing.get_context("forkserver")
"""The server that tests.training.harness sets up."""


@dataclass(frozen=True)
class Training:
    """What a training came to."""

    curve: list[dict[str, float]]
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    parts: list[dict[str, int]]
    """Targets of each micro-batch of the first rank, by the name of the loss term."""


class Trained(Exception):
    """Ends a stage as soon as its training is done."""


def train_all(root: Path, runtime: str, configs: Mapping[str, str]) -> dict[str, Training]:
    """The training of each stage, whose configurations are given by its name, under one runtime."""
    settings = yaml.safe_load((root / f"conf/runtime/{runtime}.yaml").read_text())
    world_size = settings["num_devices"]
    results, log = root / f"{runtime}.pt", root / f"{runtime}.log"
    shared = {"PIPELINE_RUNTIME": runtime, "PIPELINE_TRACKING": "local", "WORLD_SIZE": str(world_size)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    ranks = [
        _forks.Process(
            target=_train_all,
            args=(root, dict(configs), results, log),
            kwargs={"environment": shared | ({"LOCAL_RANK": str(rank)} if world_size > 1 else {})},
        )
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(_SECONDS)
        if rank.pid and rank.is_alive():
            os.killpg(rank.pid, signal.SIGKILL)
            rank.join()
    assert [rank.exitcode for rank in ranks] == [0] * world_size, log.read_text()
    found = torch.load(results, weights_only=True)
    return {name: Training(**values) for name, values in found.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _train_all(
    root: Path, configs: dict[str, str], results: Path, log: Path, *, environment: Mapping[str, str]
) -> None:
    """The life of a rank."""
    os.setsid()
    os.chdir(root)
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    training: Any = importlib.import_module("pipeline.training.fit")
    run_training, found = training.train_module, dict[str, dict[str, Any]]()

    def train_and_stop(run: Any, module: Any, loader: Any, resumed: Any, callbacks: Sequence[Any]) -> None:
        before = {key: tensor.clone() for key, tensor in module.model.state_dict().items()}
        parts: list[dict[str, int]] = []
        objective = module.objective

        def count(batch: Any) -> Any:
            terms = objective(batch)
            parts.append({term.name: term.num_targets for term in terms})
            return terms

        module.objective = count
        run_training(run, module, loader, resumed, callbacks)
        after = {key: tensor.clone() for key, tensor in module.model.state_dict().items()}
        found[name] = {"curve": module.history[:], "before": before, "after": after, "parts": parts}
        raise Trained

    training.train_module = train_and_stop
    dist.destroy_process_group = lambda group=None: None  # the next stage needs it
    for name, config in configs.items():
        stage: Any = importlib.import_module(f"pipeline.stages.{name.partition('/')[0]}")
        if hasattr(stage, "train_module"):
            stage.train_module = train_and_stop  # imported by name where the loader is the stage's own
        try:
            stage.main(Path(config))
        except Trained:
            continue
        except SystemExit as end:
            # The ranks but the first end with their training.
            assert end.code == 0 and os.environ["LOCAL_RANK"] != "0"
    if found:
        torch.save(found, results)
    sys.stdout.flush()
