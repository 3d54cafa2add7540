"""Proximal policy optimization of the fine-tuned model against the reward model (Ouyang et al. 2022).

The loader is the outer loop: at the border of an iteration it has the worker sample and score answers, then it hands
out the optimizer steps over them. So the updates are ordinary training steps, and clipping, precision, accumulation
and DeepSpeed work as everywhere.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pipeline.config import ByExamples, Config, Epochs, TrainingConfig, load
from pipeline.data.batches import RolloutBatch
from pipeline.data.examples.rollouts import RolloutBuffer
from pipeline.data.loaders import Cut
from pipeline.inference.handover import open_gpt, open_scorer, save_gpt
from pipeline.layout import Layout
from pipeline.models.heads import ActorCritic
from pipeline.objectives.likelihood import token_log_probs
from pipeline.objectives.policy import (
    AdaptiveKL,
    FixedKL,
    KLController,
    entropy_bonus,
    ppo_policy_loss,
    ppo_value_loss,
)
from pipeline.objectives.terms import LossTerms
from pipeline.runtime import RuntimeConfig
from pipeline.stages.alignment import (
    AlignmentConfig,
    PromptsConfig,
    alignment_inputs,
    evaluate_alignment,
    read_judged,
    read_prompts,
)
from pipeline.stages.rollout import RolloutConfig, RolloutWorker, ScoreScale
from pipeline.stages.rollout_loader import RolloutLoader, steps_per_iteration
from pipeline.training.base import StageModule
from pipeline.training.callbacks import Validation
from pipeline.training.fit import newest_checkpoint, place_of, train_module
from pipeline.training.launch import launch
from pipeline.training.run import StageRun, stage_run


class FixedKLConfig(Config):
    """A KL penalty that stays."""

    kind: Literal["fixed"]
    coef: NonNegativeFloat
    """Reward taken for each nat of KL to the reference."""


class AdaptiveKLConfig(Config):
    """A KL penalty that is steered towards a target (Ziegler et al. 2019)."""

    kind: Literal["adaptive"]
    coef: PositiveFloat
    """Reward taken for each nat of KL in the first iteration."""
    target: PositiveFloat
    """Wanted KL of an answer in nats."""
    horizon: PositiveInt
    """Answers over which a full error changes the coefficient by about a fifth."""


class PolicyConfig(Config):
    """The PPO objective."""

    clip_range: PositiveFloat
    """Farthest that a probability ratio may be from 1 and still be rewarded."""
    value_clip_range: PositiveFloat
    """Farthest that a value may move from the old one within an iteration."""
    value_weight: PositiveFloat
    """Weight of the value loss."""
    entropy_weight: NonNegativeFloat
    """Weight of the entropy bonus."""
    kl: Annotated[FixedKLConfig | AdaptiveKLConfig, Field(discriminator="kind")]
    """How far the policy may go from the reference."""


def kl_controller(config: FixedKLConfig | AdaptiveKLConfig) -> KLController:
    """The controller of the first iteration."""
    match config:
        case FixedKLConfig():
            return FixedKL(config.coef)
        case AdaptiveKLConfig():
            return AdaptiveKL(config.coef, config.target, config.horizon)


class ProximalPolicyOptimization(StageModule[RolloutBatch]):
    """Clipped policy loss, clipped value loss and entropy bonus over the response tokens of a rollout."""

    model: ActorCritic
    key_metrics = ("rollout/reward", "rollout/kl")

    def __init__(
        self, model: ActorCritic, training: TrainingConfig, config: PolicyConfig, worker: RolloutWorker, place: Cut
    ) -> None:
        super().__init__(model, training)
        self.config = config
        self.worker = worker
        self.place = place
        self.controller = kl_controller(config.kl)
        self._buffer: RolloutBuffer | None = None
        self._scale: ScoreScale | None = None
        self._rollout_report: dict[str, float] = {}

    def rollout(self) -> RolloutBuffer:
        """The experience of the current iteration."""
        assert self._buffer is not None, "the loader rolls out before the first step"
        return self._buffer

    def objective(self, batch: RolloutBatch) -> tuple[LossTerms, ...]:
        """Three losses with one denominator: the response tokens of the optimizer step."""
        config, counted = self.config, batch.is_response
        output = self.model(batch.input_ids)
        logits = self.worker.policy.logits(self.model.logits(output.hidden[counted]))
        policy = ppo_policy_loss(
            token_log_probs(logits, batch.labels[counted]),
            batch.old_log_probs[counted],
            batch.advantages[counted],
            clip_range=config.clip_range,
        )
        value = ppo_value_loss(
            output.values[counted],
            batch.old_values[counted],
            batch.returns[counted],
            clip_range=config.value_clip_range,
            weight=config.value_weight,
        )
        return policy, value, entropy_bonus(logits, weight=config.entropy_weight)

    def roll_out(self, iteration: int) -> None:
        """Gathers the experience of the current policy, in the precision of the training."""
        with self.trainer.precision_plugin.train_step_context():
            rollout = self.worker.roll_out(
                self.model, self.controller, self._scale, iteration=iteration, place=self.place
            )
        self._buffer, self._scale, self._rollout_report = rollout.buffer, rollout.scale, rollout.report
        self.controller = self.controller.step(rollout.report["kl"], len(rollout.buffer.input_ids))

    def validate_on(self, prompts: Sequence[Int[np.ndarray, "_"]]) -> Mapping[str, float]:
        """How answers to held-out prompts fare."""
        with self.trainer.precision_plugin.val_step_context():
            return self.worker.validate(self.model, prompts, place=self.place)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Puts the iteration's report into the row of its first step."""
        super().on_before_optimizer_step(optimizer)
        if self._current.is_last:
            self.history.add_to_last({f"rollout/{name}": value for name, value in self._rollout_report.items()})
            self._rollout_report = {}

    def extra_state(self) -> dict[str, Any]:
        """The rollout in use, the scale of scores and the KL coefficient: an iteration is never rolled out twice."""
        assert self._scale is not None
        return {
            "buffer": self.rollout().state(),
            "score_mean": self._scale.mean,
            "score_std": self._scale.std,
            "kl_coef": self.controller.coef,
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what `extra_state` gave."""
        self._buffer = RolloutBuffer.from_state(state["buffer"])
        self._scale = ScoreScale(mean=state["score_mean"], std=state["score_std"])
        self.controller = replace(self.controller, coef=state["kl_coef"])


class PPOConfig(Config):
    """The stage ppo."""

    training: TrainingConfig
    """Optimizer and schedule; `batching` cuts a rollout into optimizer steps, `duration` is the passes over each."""
    policy: PolicyConfig
    """The objective."""
    rollout: RolloutConfig
    """How experience is gathered."""
    prompts: PromptsConfig
    """Requests, taken from the training split."""
    num_valid_prompts: PositiveInt
    """So many requests of the validation split, at most, are answered at each validation."""
    alignment: AlignmentConfig
    """How the answers are judged afterwards."""

    @model_validator(mode="after")
    def _kl_stays_a_penalty(self) -> "PPOConfig":
        kl, count = self.policy.kl, self.rollout.prompts_per_iteration
        if isinstance(kl, AdaptiveKLConfig) and count >= 5 * kl.horizon:
            raise ValueError(
                f"policy.kl.horizon: found {kl.horizon}, allowed is more than {count / 5:g}: of {count} answers in an "
                "iteration (rollout.prompts_per_iteration) one step could take the whole coefficient away"
            )
        return self


def main(path: Path) -> None:
    """Trains, judges the answers beside those of the model it started from, and hands over a GPT."""
    config = load(path, PPOConfig)
    training = config.training
    layout = Layout.of(path)
    folder = layout.model("sft")
    inputs = (folder, *alignment_inputs(layout))
    with stage_run(__spec__.name, path, config, seed=training.seed, inputs=inputs) as run:
        batching, duration = checked_loop(config, run.runtime)
        opened, reference = open_gpt(folder), open_gpt(folder)
        reward = open_scorer(layout.model("reward"), opened.tokenizer)
        train, valid = (
            read_prompts(layout, split, config.prompts, opened, config.rollout.max_new_tokens, key="prompts")
            for split in ("train", "valid")
        )
        requests = read_judged(layout, config.alignment, opened)
        model = ActorCritic(opened.model, copy.deepcopy(reward.trunk))
        worker = RolloutWorker(
            config.rollout,
            train.ids,
            reference=reference.model,
            reward=reward,
            tokenizer=opened.tokenizer,
            seed=training.seed,
        )
        module = ProximalPolicyOptimization(model, training, config.policy, worker, place_of(run.runtime))
        valid = valid.spread(config.num_valid_prompts)
        fit_by_rollouts(run, module, batching, duration, valid.ids)
        # Before the answers are judged, so that a fault of that, which ends the stage, does not lose what was trained.
        save_gpt(run.layout.output, module.model.policy, opened.tokenizer)
        judged = evaluate_alignment(layout, config.alignment, requests, tuned=module.model.policy, start=reference)
        prompts = {"train": train.counts(), "valid": valid.counts()}
        run.finish({"prompts": prompts, **judged.metrics}, history=module.history, samples=judged.samples)


def fit_by_rollouts(
    run: StageRun,
    module: ProximalPolicyOptimization,
    batching: ByExamples,
    duration: Epochs,
    valid: Sequence[Int[np.ndarray, "_"]],
) -> None:
    """`fit` with the rollout loader in place of a data set, and answers to prompts as validation."""
    found = newest_checkpoint(run)
    loader = RolloutLoader(
        module,
        module.worker.config,
        module.place,
        batching=batching,
        duration=duration,
        seed=module.training_config.seed,
        start=found.update if found else 0,
    )
    module.num_steps = loader.num_steps
    validation = Validation(lambda: module.validate_on(valid), every=module.training_config.validate_every)
    train_module(run, module, loader, found, [validation])


def checked_loop(config: PPOConfig, runtime: RuntimeConfig) -> tuple[ByExamples, Epochs]:
    """How each rollout is learned from; ValueError for what PPO cannot do, before anything is loaded."""
    if runtime.zero_stage == 3:
        raise ValueError("PIPELINE_RUNTIME: ppo generates with the whole model, which ZeRO-3 splits; use ZeRO-1 or 2")
    batching, duration = config.training.batching, config.training.duration
    if not isinstance(batching, ByExamples):
        raise ValueError(f"training.batching: ppo needs kind examples, found {batching.kind}")
    if not isinstance(duration, Epochs):
        raise ValueError(f"training.duration: ppo needs kind epochs, found {duration.kind}")
    steps_per_iteration(config.rollout, batching, duration)
    return batching, duration


if __name__ == "__main__":
    launch(main)
