"""Optimizer steps of a stage's module on the batches of its plan, without the Trainer around them."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import nn

from pipeline.data.batches import Batch, MicroBatch
from pipeline.data.loaders import Cut, TrainingLoader
from pipeline.data.plan import TrainingPlan
from pipeline.training.base import StageModule, build_optimizer

B = TypeVar("B", bound=Batch)


def stage_step(module: StageModule[B]) -> Callable[[MicroBatch[B]], None]:
    """Objective, backward pass, clipping and optimizer of a stage."""
    config = module.training_config.optimizer
    optimizer = build_optimizer(module.model, config, fused=True)
    module.train()

    def step(micro: MicroBatch[B]) -> None:
        torch.autograd.backward(module.training_step(micro, 0))
        nn.utils.clip_grad_norm_(module.model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def whole_steps(plan: TrainingPlan[B]) -> Iterator[MicroBatch[B]]:
    """Every optimizer step of a plan in one piece, planned and made when it is asked for."""
    return iter(TrainingLoader(plan, Cut(rank=0, world_size=1, accumulation=1), start=0, prefetch=0))
