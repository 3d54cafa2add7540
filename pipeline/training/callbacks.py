"""What happens at the end of an optimizer step, one small callback for each: validate, save, stop, show, track."""

import logging
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from pipeline.checkpoints import CheckpointFolder, Writer
from pipeline.data.batches import MicroBatch
from pipeline.runtime import RuntimeConfig, full_state
from pipeline.seeds import random_state, restore_random_state, seed_everything
from pipeline.training.base import StageModule
from pipeline.training.interrupt import Interrupt

_log = logging.getLogger(__name__)

STATE = "state.ckpt"
"""Lightning's part of a checkpoint, weights and optimizer: a file, or under DeepSpeed a folder."""
PROGRESS = "progress.pt"
"""Our own part, the same for every strategy."""
RANDOM = "random-{}.pt"
"""The random number generators of one rank."""


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
            module.history.add_to_last({f"valid/{name}": value for name, value in self.validate().items()})


class StopAtStep(StepCallback):
    """Turns a stop request on any rank into one common end at the same step; the first callback of a step."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts our handlers back: Lightning has just registered its own."""
        self.interrupt.install()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Each micro-batch is a sign that the step moves."""
        self.interrupt.begin_micro_batch()

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """The ranks agree on the highest signal number that any of them saw."""
        signum = self.interrupt.signum
        if dist.is_available() and dist.is_initialized():
            seen = torch.tensor(signum, device=module.device)
            dist.all_reduce(seen, op=dist.ReduceOp.MAX)
            signum = int(seen)
        if signum:
            self.interrupt.agree(signum)
            trainer.should_stop = True
        self.interrupt.end_step()


class SaveCheckpoint(StepCallback):
    """Publishes a resume checkpoint every so many steps, at the last step, and when asked to stop."""

    def __init__(self, checkpoints: CheckpointFolder, writer: Writer, *, every: int) -> None:
        self.checkpoints = checkpoints
        self.writer = writer
        self.every = every

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """All ranks write into the temporary folder; rank 0 publishes it when all have."""
        if update % self.every and update != module.num_steps and not trainer.should_stop:
            return
        with self.checkpoints.writing(update, is_main=trainer.is_global_zero) as folder:
            trainer.strategy.barrier("checkpoint-begin")
            trainer.save_checkpoint(folder / STATE)
            _save(random_state(), folder / RANDOM.format(trainer.global_rank))
            if trainer.is_global_zero:
                _save(module.progress(), folder / PROGRESS)
            trainer.strategy.barrier("checkpoint-written")
            if trainer.is_global_zero:
                self.checkpoints.publish(update, writer=self.writer)
            trainer.strategy.barrier("checkpoint-published")


def _save(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)


class TrainedWeights(Callback):
    """Takes the trained parameters out of the strategy before Lightning takes it down."""

    def __init__(self, runtime: RuntimeConfig) -> None:
        self.runtime = runtime
        self.state: dict[str, Tensor] = {}
        """All parameters and buffers on the CPU, once the training is complete; on rank 0 alone."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A training that was stopped hands nothing over."""
        self._take(trainer, pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Where no step is left to do, Lightning never starts the training that would end."""
        self._take(trainer, pl_module)

    def _take(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, StageModule)
        if module.update == module.num_steps:
            state = full_state(self.runtime, module.model)
            self.state = state if trainer.is_global_zero else {}


class SameStart(Callback):
    """Refuses ranks that would start at different steps, and nodes that do not share the checkpoint folder."""

    def __init__(self, start: int, checkpoints: CheckpointFolder) -> None:
        self.start = start
        self.checkpoints = checkpoints

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """As soon as the ranks can talk to each other, before anything is restored."""
        assert isinstance(pl_module, StageModule)
        if not (dist.is_available() and dist.is_initialized()):
            return
        # A file system remembers that a name is missing; nobody has looked for this one before.
        own_number = secrets.randbits(60)
        with self.checkpoints.marked(own_number, is_main=trainer.is_global_zero):
            everywhere = _gathered(trainer, [self.start, pl_module.num_steps, own_number])
            found = [(start, end) for start, end, _ in everywhere]
            if len(set(found)) > 1:
                raise ValueError(
                    f"the ranks would start at different steps, or end at different ones: (start, end) are {found}; "
                    "all nodes need the same files and one shared checkpoint folder"
                )
            _, _, number = everywhere[0]
            is_shared = _gathered(trainer, [int(self.checkpoints.has_mark(number))])
            apart = [rank for rank, (has_mark,) in enumerate(is_shared) if not has_mark]
            if apart:
                raise ValueError(
                    f"{self.checkpoints.folder.absolute()}: the ranks {apart} do not find there what rank 0 has "
                    "written; all nodes need one shared checkpoint folder, under the same path from where they start"
                )


def _gathered(trainer: Trainer, values: list[int]) -> list[list[int]]:
    """The values of every rank. A collective operation."""
    own = torch.tensor(values, device=trainer.strategy.root_device)
    everywhere = [torch.zeros_like(own) for _ in range(trainer.world_size)]
    dist.all_gather(everywhere, own)
    return [rank.tolist() for rank in everywhere]


class OwnSettings(Callback):
    """Gives back its own settings to an optimizer that was restored from a checkpoint of another configuration."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the optimizer is restored; the rate is set at every step."""
        assert isinstance(pl_module, StageModule)
        for group, settings in zip(trainer.optimizers[0].param_groups, pl_module.optimizer_settings, strict=True):
            group.update(settings)


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
        self.seen: dict[str, str] = {}
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
        # What is not in every row, as a validation, stays in view until it is measured again.
        self.seen |= {
            key: f"{row[key]:.4g}" for key in ("train/total", "valid/total", *module.key_metrics, "lr") if key in row
        }
        self.bar.set_postfix(self.seen, refresh=False)
        self.bar.update(1)
        now = time.monotonic()
        has_news = any(key in row for key in ("valid/total", *module.key_metrics))
        if trainer.is_global_zero and self.bar.disable and (now - self.shown > self.seconds or has_news):
            self.shown = now
            speed = (update - self.first) / (now - self.started)
            left = (module.num_steps - update) / speed
            values = "  ".join(f"{key} {value}" for key, value in self.seen.items())
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
