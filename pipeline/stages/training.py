"""`fit`: a module, a plan and validation data become a trained model, through kills, signals and any runtime."""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback

from pipeline.checkpoints import Checkpoint, CheckpointFolder
from pipeline.data.batches import Batch, Examples, MicroBatch
from pipeline.data.loaders import Cut, TrainingLoader, validation_batches
from pipeline.data.plan import TrainingPlan, padding_share
from pipeline.runtime import build_trainer, full_state, global_rank, gradient_scale
from pipeline.stages.base import StageModule
from pipeline.stages.callbacks import (
    STATE,
    Progress,
    RandomState,
    SaveCheckpoint,
    StopAtStep,
    Track,
    Validation,
)
from pipeline.stages.run import StageRun

_log = logging.getLogger(__name__)

B = TypeVar("B", bound=Batch)


def fit(run: StageRun, module: StageModule[B], *, train: Examples[B], valid: Examples[B]) -> None:
    """Trains `module` and leaves the plain trained model, on the CPU or the first GPU, in `module.model`.

    Continues from the newest valid checkpoint of the same configuration, code and inputs. Returns on rank 0 only:
    the other ranks end here, and a stop request ends the process with 128 + signal after saving.
    """
    config = module.training_config
    plan = TrainingPlan(train, config.batching, config.duration, seed=config.seed)
    runtime = run.runtime
    _log.info(
        "%s: %d steps, padding %.1f%%, %.2f M parameters",
        run.layout.stage,
        plan.num_steps,
        100 * padding_share(plan.epoch(0), train.sizes(0)),
        sum(parameter.numel() for parameter in module.model.parameters()) / 1e6,
    )
    checkpoints = CheckpointFolder(run.layout.local, run.key)
    found = checkpoints.newest(world_size=runtime.world_size)
    if found:
        _log.info("continuing from %s", found.folder)
    place = Cut(rank=global_rank(), world_size=runtime.world_size, accumulation=runtime.accumulation)
    loader = TrainingLoader(plan, place, start=found.update if found else 0, prefetch=runtime.prefetch)

    def validate() -> Mapping[str, float]:
        return module.validate(
            validation_batches(valid, config.batching, rank=global_rank(), world_size=runtime.world_size)
        )

    module.num_steps = plan.num_steps
    train_module(run, module, loader, found, [Validation(validate, every=config.validate_every)])


def train_module(
    run: StageRun,
    module: StageModule[Any],
    loader: Iterable[MicroBatch[Any]],
    found: Checkpoint | None,
    callbacks: Sequence[Callback],
) -> None:
    """The Lightning side of `fit`, for stages that bring a loader of their own."""
    config, runtime = module.training_config, run.runtime
    module.loss_scale = gradient_scale(runtime)
    checkpoints = CheckpointFolder(run.layout.local, run.key)
    # ZeRO-3 leaves the parameters in pieces: the trained ones go into a copy.
    plain = copy.deepcopy(module.model) if runtime.zero_stage == 3 else module.model
    state = torch.load(found.folder / f"random-{global_rank()}.pt", weights_only=True) if found else {}
    trainer = build_trainer(
        runtime,
        clip_norm=config.optimizer.clip_norm,
        callbacks=[
            *callbacks,
            StopAtStep(run.interrupt),
            SaveCheckpoint(checkpoints, every=config.checkpoint_every),
            RandomState(state, seed=config.seed),
            Progress(run.layout.stage),
            Track(run.tracker.metrics),
        ],
        folder=run.layout.local,
    )
    run.interrupt.is_training = True
    trainer.fit(module, loader, ckpt_path=found.folder / STATE if found else None, weights_only=True)
    run.interrupt.is_training = False
    if run.interrupt.signum:
        # The other ranks end well: Lightning kills rank 0 as soon as one of them does not.
        raise SystemExit(run.interrupt.exit_code if trainer.is_global_zero else 0)
    weights = full_state(runtime, module.model)
    if not trainer.is_global_zero:
        raise SystemExit(0)
    plain.load_state_dict(weights)
    module.model = plain.to("cuda" if runtime.accelerator == "cuda" else "cpu").eval()
