"""What happens at the end of an optimizer step, one small callback for each: validate, save, stop, show, track."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from pipeline.checkpoints import CheckpointFolder
from pipeline.data.batches import MicroBatch
from pipeline.runtime import random_state, restore_random_state, seed_everything
from pipeline.stages.base import StageModule
from pipeline.stages.interrupt import Interrupt

_log = logging.getLogger(__name__)

STATE = "state.ckpt"
"""Lightning's part of a checkpoint: a file, or under DeepSpeed a folder."""


class StepCallback(Callback):
    """Base: calls `on_step_end` once for each optimizer step, at its end."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Passes over all but the last micro-batch of a step."""
        assert isinstance(batch, MicroBatch) and isinstance(pl_module, StageModule)
        if batch.is_last:
            self.on_step_end(trainer, pl_module, pl_module.update)

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """What is done when `update` optimizer steps are done."""


class Validation(StepCallback):
    """Validates every so many optimizer steps, and at the last one."""

    def __init__(self, validate: Callable[[], Mapping[str, float]], *, every: int) -> None:
        self.validate = validate
        self.every = every

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """Adds a row of `valid/...` values to the history."""
        if update % self.every == 0 or update == module.num_steps:
            values = {f"valid/{name}": value for name, value in self.validate().items()}
            module.history[-1] = module.history[-1] | values


class StopAtStep(StepCallback):
    """Turns a stop request on any rank into one common end at the same step."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Puts our handlers back: Lightning has just registered its own."""
        self.interrupt.install()

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """The ranks agree on the highest signal number that any of them saw."""
        signum = self.interrupt.signum
        if dist.is_available() and dist.is_initialized():
            seen = torch.tensor(signum, device=module.device)
            dist.all_reduce(seen, op=dist.ReduceOp.MAX)
            signum = int(seen)
        if signum:
            self.interrupt.signum = signum
            trainer.should_stop = True


class SaveCheckpoint(StepCallback):
    """Publishes a resume checkpoint every so many steps, at the last step, and when asked to stop."""

    def __init__(self, checkpoints: CheckpointFolder, *, every: int) -> None:
        self.checkpoints = checkpoints
        self.every = every

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """All ranks write into the temporary folder; rank 0 publishes it when all have."""
        if update % self.every and update != module.num_steps and not trainer.should_stop:
            return
        folder = self.checkpoints.temporary(update)
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
        trainer.strategy.barrier("checkpoint-begin")
        trainer.save_checkpoint(folder / STATE)
        torch.save(random_state(), folder / f"random-{trainer.global_rank}.pt")
        trainer.strategy.barrier("checkpoint-written")
        if trainer.is_global_zero:
            self.checkpoints.publish(update, world_size=trainer.world_size)
        trainer.strategy.barrier("checkpoint-published")


class RandomState(Callback):
    """Gives each rank its own random numbers: a fresh stream, or the one that its checkpoint holds."""

    def __init__(self, state: dict[str, Any], *, seed: int) -> None:
        self.state = state
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As late as possible, so that nothing before the first step has drawn from the stream."""
        if self.state:
            restore_random_state(self.state)
        else:
            seed_everything(self.seed * 1_000_003 + trainer.global_rank)


class Progress(StepCallback):
    """Speed, remaining time and losses: a bar on a terminal, a line now and then elsewhere. Rank 0 alone shows it."""

    def __init__(self, name: str, *, seconds: float = 10.0) -> None:
        self.name = name
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        assert isinstance(pl_module, StageModule)
        self.started = self.shown = time.monotonic()
        self.first = pl_module.update
        self.bar = tqdm(
            total=pl_module.num_steps,
            initial=pl_module.update,
            desc=self.name,
            unit="step",
            disable=not (trainer.is_global_zero and sys.stderr.isatty()),
        )

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """Moves the bar, or writes a line when enough time has passed."""
        row = module.history[-1]
        shown = {key: f"{row[key]:.4g}" for key in ("train/total", "valid/total", "lr") if key in row}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(1)
        now = time.monotonic()
        if trainer.is_global_zero and self.bar.disable and (now - self.shown > self.seconds or "valid/total" in row):
            self.shown = now
            speed = (update - self.first) / (now - self.started)
            left = (module.num_steps - update) / speed
            values = "  ".join(f"{key} {value}" for key, value in shown.items())
            _log.info(
                "%s %d/%d  %s  %.1f steps/s  %.0f s left", self.name, update, module.num_steps, values, speed, left
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the bar as it stands."""
        self.bar.close()


class Track(StepCallback):
    """Sends the newest row of reports to the tracker."""

    def __init__(self, send: Callable[[Mapping[str, float], int], None]) -> None:
        self.send = send

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """Rank 0 alone tracks."""
        if trainer.is_global_zero:
            self.send({key: value for key, value in module.history[-1].items() if key != "update"}, update)
