"""The training step of the stage translate, without its Trainer: what it computes, and nothing around it."""

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.shared.task import CLIP, LR, SMOOTHING, TOKENS_PER_STEP, model_config
from pipeline.config import ByTokens, OptimizerConfig, ScheduleConfig, Steps, TrainingConfig
from pipeline.data.batches import MicroBatch, TranslationBatch
from pipeline.models.seq2seq import Seq2Seq
from pipeline.stages.base import build_optimizer
from pipeline.stages.translate import TranslationTraining

TakeStep = Callable[[MicroBatch[TranslationBatch]], None]


def training_config(num_steps: int) -> TrainingConfig:
    """The training of the other benchmarks."""
    return TrainingConfig(
        seed=1,
        batching=ByTokens(kind="tokens", tokens_per_step=TOKENS_PER_STEP),
        duration=Steps(kind="steps", num_steps=num_steps),
        optimizer=OptimizerConfig(lr=LR, betas=(0.9, 0.98), clip_norm=CLIP),
        schedule=ScheduleConfig(kind="constant"),
        validate_every=1,
        checkpoint_every=1,
    )


def stage_step(vocab_size: int) -> TakeStep:
    """Objective, backward pass, clipping and optimizer of the stage."""
    torch.manual_seed(1)
    config = training_config(1)
    module = TranslationTraining(Seq2Seq(model_config(vocab_size)), config, label_smoothing=SMOOTHING).train()
    optimizer = build_optimizer(module.model, config.optimizer, fused=True)

    def step(micro: MicroBatch[TranslationBatch]) -> None:
        torch.autograd.backward(module.training_step(micro, 0))
        nn.utils.clip_grad_norm_(module.model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return step
