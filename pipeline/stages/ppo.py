"""Proximal policy optimization of the fine-tuned model against the reward model (Ouyang et al. 2022).

The loader is the outer loop: at the border of an iteration it has the worker sample and score answers, then it hands
out the optimizer steps over them. So the updates are ordinary training steps, and clipping, precision, accumulation
and DeepSpeed work as everywhere.
"""

import copy
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipeline.config import ByExamples, Config, Epochs, TrainingConfig, load
from pipeline.data.batches import MicroBatch, RolloutBatch
from pipeline.data.loaders import Cut
from pipeline.data.rollouts import RolloutBuffer
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
from pipeline.stages.alignment import (
    AlignmentConfig,
    PromptsConfig,
    alignment_inputs,
    evaluate_alignment,
    read_prompts,
    score_answers,
)
from pipeline.stages.base import StageModule
from pipeline.stages.generation import generate
from pipeline.stages.handover import open_gpt, open_reward, save_gpt
from pipeline.stages.launch import launch
from pipeline.stages.rollout import RolloutConfig, RolloutWorker, ScoreScale, iteration_batches, iteration_plan
from pipeline.stages.run import StageRun, stage_run
from pipeline.stages.training import newest_checkpoint, place_of, train_module


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

    def __init__(
        self, model: ActorCritic, training: TrainingConfig, config: PolicyConfig, *, temperature: float
    ) -> None:
        super().__init__(model, training)
        self.config = config
        self.temperature = temperature
        self.controller = kl_controller(config.kl)
        self.buffer: RolloutBuffer | None = None
        """The rollout of the current iteration; None before the first."""
        self.rollout_report: dict[str, float] = {}

    def objective(self, batch: RolloutBatch) -> tuple[LossTerms, ...]:
        """Three losses with one denominator: the response tokens of the optimizer step."""
        config, counted = self.config, batch.is_response
        output = self.model(batch.input_ids)
        logits = self.model.logits(output.hidden[counted]) / self.temperature
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

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Puts the iteration's report into the row of its first step."""
        super().on_before_optimizer_step(optimizer)
        if self.history and self.rollout_report and self.history[-1]["update"] == self.update:
            self.history.add_to_last({f"rollout/{name}": value for name, value in self.rollout_report.items()})
            self.rollout_report = {}

    def extra_state(self) -> dict[str, Any]:
        """The rollout in use and the KL coefficient: an iteration is resumed inside, never rolled out twice."""
        assert self.buffer is not None
        return {"buffer": self.buffer.state(), "kl_coef": self.controller.coef}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores both."""
        self.buffer = RolloutBuffer.from_state(state["buffer"])
        self.controller = type(self.controller)(**asdict(self.controller) | {"coef": state["kl_coef"]})


class RolloutLoader:
    """The micro-batches of one rank over all iterations, from any optimizer step on."""

    def __init__(
        self,
        module: ProximalPolicyOptimization,
        worker: RolloutWorker,
        place: Cut,
        *,
        batching: ByExamples,
        duration: Epochs,
        start: int,
    ) -> None:
        config = worker.config
        if config.prompts_per_iteration % batching.examples_per_step:
            raise ValueError(
                f"rollout.prompts_per_iteration: {config.prompts_per_iteration} is no multiple of "
                f"training.batching.examples_per_step, {batching.examples_per_step}"
            )
        self.module = module
        self.worker = worker
        self.place = place
        self.batching = batching
        self.duration = duration
        self.start = start
        self.steps_per_iteration = config.prompts_per_iteration // batching.examples_per_step * duration.num_epochs
        self.num_steps = config.num_iterations * self.steps_per_iteration

    def __len__(self) -> int:
        return (self.num_steps - self.start) * self.place.accumulation

    def __iter__(self) -> Iterator[MicroBatch[RolloutBatch]]:
        first, position = divmod(self.start, self.steps_per_iteration)
        for iteration in range(first, self.worker.config.num_iterations):
            if iteration > first or position == 0:
                self._roll_out(iteration)
            assert self.module.buffer is not None
            plan = iteration_plan(
                self.module.buffer, self.batching, self.duration, seed=self.worker.seed, iteration=iteration
            )
            begin = position if iteration == first else 0
            yield from iteration_batches(plan, self.place, iteration=iteration, start=begin)

    def _roll_out(self, iteration: int) -> None:
        module = self.module
        rollout = self.worker.roll_out(module.model, module.controller, iteration=iteration, place=self.place)
        module.buffer = rollout.buffer
        module.rollout_report = rollout.report
        module.controller = module.controller.step(rollout.report["kl"], self.worker.config.prompts_per_iteration)


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
    alignment: AlignmentConfig
    """How the answers are judged afterwards."""


def main(path: Path) -> None:
    """Trains, judges the answers beside those of the model it started from, and hands over a GPT."""
    config = load(path, PPOConfig)
    training = config.training
    layout = Layout.of(path)
    folder = layout.model("sft")
    inputs = (folder, *alignment_inputs(layout))
    with stage_run(__spec__.name, path, config, seed=training.seed, inputs=inputs) as run:
        _check(config, run.runtime.zero_stage)
        opened, reference = open_gpt(folder), open_gpt(folder)
        reference.model.to(run.device)
        reward = open_reward(layout.model("reward")).model.to(run.device)
        prompts = read_prompts(layout, "train", config.prompts, opened.tokenizer)
        asked = prompts[: config.alignment.num_prompts]
        usual = generate(reference.model, opened.tokenizer, asked, config.alignment.decoding)
        module = ProximalPolicyOptimization(
            ActorCritic(opened.model, copy.deepcopy(reward.trunk).cpu()),
            training,
            config.policy,
            temperature=config.rollout.temperature,
        )
        worker = RolloutWorker(
            config.rollout,
            prompts,
            reference=reference.model,
            reward=reward,
            scale=ScoreScale.of(score_answers(reward.eval(), asked, usual, opened.tokenizer)),
            tokenizer=opened.tokenizer,
            seed=training.seed,
        )
        fit_by_rollouts(run, module, worker)
        judged = evaluate_alignment(layout, config.alignment, tuned=module.model.policy, start=reference)
        save_gpt(run.layout.output, module.model.policy, opened.tokenizer)
        run.finish(judged.metrics, history=module.history, samples=judged.samples)


def fit_by_rollouts(run: StageRun, module: ProximalPolicyOptimization, worker: RolloutWorker) -> None:
    """`fit` with the rollout loader in place of a data set."""
    batching, duration = module.training_config.batching, module.training_config.duration
    assert isinstance(batching, ByExamples) and isinstance(duration, Epochs)
    found = newest_checkpoint(run)
    loader = RolloutLoader(
        module,
        worker,
        place_of(run.runtime),
        batching=batching,
        duration=duration,
        start=found.update if found else 0,
    )
    module.num_steps = loader.num_steps
    train_module(run, module, loader, found, [])


def _check(config: PPOConfig, zero_stage: int) -> None:
    """Refuses what PPO cannot do, before anything is loaded."""
    if zero_stage == 3:
        raise ValueError("PIPELINE_RUNTIME: ppo generates with the whole model, which ZeRO-3 splits; use ZeRO-1 or 2")
    for key, value, allowed in (
        ("batching", config.training.batching, ByExamples),
        ("duration", config.training.duration, Epochs),
    ):
        if not isinstance(value, allowed):
            raise ValueError(
                f"training.{key}: ppo needs kind {allowed.__name__.removeprefix('By').lower()}, found {value.kind}"
            )


if __name__ == "__main__":
    launch(main)
